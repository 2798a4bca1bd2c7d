"""Computing a prompt on the decode engine itself, or on a prefill engine first: both in seconds, for every pair. Pure.

    local(D)     = queue + memory wait + overhead + prefill · (1 + requests it delays)
    remote(P, D) = queue + memory wait + overhead + prefill   on P
                 + transfer of what D's own cache does not hold + memory wait + overhead   on D

The way is decided by these. Engines are then ranked by price, which adds what both ways cost alike or later: decoding
(as `hekla.routing.scheduling.scorers.cost` counts it) and the rent of the cache that the prompt displaces. So the best
pair and the best single engine compete for each request, and a prefill engine with a queue, a prompt that the decode
engine knows and a prompt too short to be worth a hand-over need no rules of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hekla.routing import load_columns as col
from hekla.routing.load_columns import Rows, Vector
from hekla.routing.pairs.partners import NONE, Partners
from hekla.routing.pairs.settings import DisaggregationSettings
from hekla.routing.pairs.transfers import Transfers
from hekla.routing.pairs.verdict import PairVerdict, Reason, Seconds
from hekla.routing.scheduling.candidates import Candidates, Mask, Pool
from hekla.routing.scheduling.forecast import Forecaster, Forecasts
from hekla.routing.scheduling.interface import RequestView
from hekla.routing.scheduling.priors import kind_of
from hekla.routing.scheduling.scorers.cost import Cost


class PrefillSide(NamedTuple):
    """Prefill engines as this request finds them, by position among all; infinite for those that can't take it."""

    time_s: Vector
    wait_s: Vector
    """Of it, before the prefill begins."""
    price_s: Vector


@dataclass(frozen=True)
class Offers:
    """What each decode engine can offer."""

    local_s: Vector
    remote_s: Vector
    """Infinite without a prefill engine."""
    wait_s: Vector
    transfer_s: Vector
    uncached_tokens: Vector
    is_local: Mask
    partner: Rows
    price_s: Vector
    can_be_local: Mask
    whole_local_s: Vector
    """`local_s` if nothing of the prompt were cached."""
    tokens_max: int | None
    hysteresis: float

    def verdict(self, i: int, has_failed: bool) -> PairVerdict:
        """Why the decode engine at position `i` goes the way it goes."""
        seconds = Seconds(*(float(v[i]) for v in (
            self.local_s, self.remote_s, self.wait_s, self.transfer_s, self.uncached_tokens)))  # fmt: skip
        if self.is_local[i]:
            return PairVerdict("local", self._why_local(i, has_failed), seconds)
        reason: Reason = "faster" if self.tokens_max is None else "threshold"
        return PairVerdict("remote", reason if self.can_be_local[i] else "decode_only", seconds)

    def _why_local(self, i: int, has_failed: bool) -> Reason:
        if has_failed:
            return "hand_over_failed"
        if self.partner[i] == NONE:
            return "no_prefill_engine"
        if self.tokens_max is not None:
            return "threshold"
        bound = 1.0 - self.hysteresis
        if self.local_s[i] >= bound * (self.remote_s[i] - self.wait_s[i]):
            return "backed_up"
        return "cached" if self.whole_local_s[i] >= bound * self.remote_s[i] else "short"


class Prices:
    """Binds forecasts, what is known of transfers, and the weights of the scorer `cost`."""

    def __init__(
        self, forecaster: Forecaster, transfers: Transfers, settings: DisaggregationSettings, cost: Cost
    ) -> None:
        self._forecaster, self._transfers, self._settings = forecaster, transfers, settings
        self._d, self._rho = cost.d, cost.rho

    def prefill_side(self, request: RequestView, kept: Candidates | None, count: int) -> PrefillSide:
        """`kept`: the prefill engines that may take it, of a pool of `count`."""
        side = PrefillSide(*(np.full(max(count, 1), np.inf) for _ in range(3)))
        if kept is not None and len(kept):
            f = self._forecaster.forecast(request, kept)
            compute_s = f.uncached_tokens * f.prefill_token_s
            wait_s = f.queue_s + f.memory_wait_s
            time_s = wait_s + f.prefill_s + compute_s * f.candidates.loads[col.STREAMING]
            side.time_s[kept.positions], side.wait_s[kept.positions] = time_s, wait_s
            side.price_s[kept.positions] = (time_s + self._rho * compute_s) / f.candidates.loads[col.WARMUP_SHARE]
        return side

    def offers(
        self, request: RequestView, candidates: Candidates, partners: Partners, side: PrefillSide,
        *, tokens_max: int | None, is_concurrent: bool, may_be_remote: bool = True,
    ) -> Offers:  # fmt: skip
        """In the candidates' order. `is_concurrent`: both engines are asked at the same time."""
        f, at = self._forecaster.forecast(request, candidates), candidates.positions
        partner = partners.best(side.price_s)[at] if may_be_remote else np.full(len(candidates), NONE)
        has_partner = partner != NONE
        compute_s = f.uncached_tokens * f.prefill_token_s
        overhead_s = f.prefill_s - compute_s
        delayed = np.maximum(f.batch, self._settings.delayed_min)
        start_s = f.queue_s + f.memory_wait_s + overhead_s
        local_s = start_s + compute_s * (1.0 + delayed)
        whole_local_s = start_s + f.prompt_tokens * f.prefill_token_s * (1.0 + delayed)
        transfer_s = self._transfers.seconds(f.uncached_tokens, self._scales(candidates.pool)[at])
        handed_s = transfer_s + f.memory_wait_s + (0.0 if is_concurrent else overhead_s)
        remote_s = np.where(has_partner, side.time_s[partner] + handed_s, np.inf)
        can_be_local = partners.can_be_local[at]
        if tokens_max is None:
            wants_local = local_s < (1.0 - self._settings.hysteresis) * remote_s
        else:
            wants_local = f.uncached_tokens <= tokens_max if tokens_max else np.zeros(len(candidates), dtype=np.bool_)
        is_local = can_be_local & (wants_local | ~has_partner)
        prefill_price_s = np.where(has_partner, side.price_s[partner] + handed_s, np.inf)
        way_s = np.where(is_local, local_s + self._rho * compute_s, prefill_price_s)
        return Offers(
            local_s, remote_s, np.where(has_partner, side.wait_s[partner], 0.0), transfer_s, f.uncached_tokens,
            is_local, partner, way_s + self._d * _decode_s(f), can_be_local, whole_local_s, tokens_max,
            self._settings.hysteresis,
        )  # fmt: skip

    def _scales(self, pool: Pool) -> Vector:
        kinds, of_each = pool.keep("transfers", _kinds)
        found: Vector = np.array([self._transfers.scale(kind) for kind in kinds])[of_each]
        return found


def _kinds(pool: Pool) -> tuple[list[str], Rows]:
    """The kinds of engines in it, and each engine's among them."""
    kinds, of_each = np.unique([kind_of(candidate.backend) for candidate in pool.candidates], return_inverse=True)
    return [str(kind) for kind in kinds], of_each


def _decode_s(f: Forecasts) -> Vector:
    decode_s: Vector = f.output_tokens * (f.step_s + f.batch * (f.step_s - f.step_now_s))
    return decode_s
