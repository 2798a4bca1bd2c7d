"""Chooses a decode engine, and a prefill engine for it or none: jointly, by seconds. Pure.

The profile's filters say which engines may take the request, on both sides, and its scorers rank the decode engines, as
everywhere else. Only the scorer `cost` is exchanged for one that knows both ways (`PairCost`), so that what else an
operator weighs keeps its weight. A profile without `cost` chooses both engines by itself, one after the other, and
seconds only decide whether the prefill engine is asked at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hekla.routing.load_columns import Vector
from hekla.routing.pairs.handed import FAILED, handed_of
from hekla.routing.pairs.partners import NONE, Partners
from hekla.routing.pairs.prices import Offers, PrefillSide, Prices
from hekla.routing.pairs.settings import DisaggregationSettings
from hekla.routing.pairs.transfers import Transfers
from hekla.routing.pairs.verdict import PairVerdict
from hekla.routing.scheduling.candidates import Candidates
from hekla.routing.scheduling.decision import Decision
from hekla.routing.scheduling.interface import Busy, Candidate, RequestView, Scorer
from hekla.routing.scheduling.pipeline import Meter, Profile
from hekla.routing.scheduling.scorers.cost import NOTICEABLE_S, Cost, relative


class NoPair(Exception):
    """No decode engine is left that could serve the request, alone or with a prefill engine."""


class Chosen(NamedTuple):
    decision: Decision
    prefill: Candidate | None
    verdict: PairVerdict


@dataclass(frozen=True)
class Ask:
    """One decision's circumstances. `decode` and `prefill` are pools without what has been tried."""

    request: RequestView
    partners: Partners
    decode: Candidates
    prefill: Candidates
    tokens_max: int | None
    """Uncached prompt tokens up to which a prompt is computed on the decode engine; None: by predicted time."""
    is_concurrent: bool
    timer: Callable[[], float]
    meter: Meter


class PairCost:
    """The scorer `cost` of a request that may be prefilled elsewhere."""

    name = "cost"

    def __init__(self, offers: Callable[[Candidates], Offers]) -> None:
        self._offers = offers
        self._known: tuple[Candidates, Offers] | None = None

    def offers(self, candidates: Candidates) -> Offers:
        """Made once as long as the candidates stay the same."""
        if self._known is None or self._known[0] is not candidates:
            self._known = (candidates, self._offers(candidates))
        return self._known[1]

    def score(self, request: RequestView, candidates: Collection[Candidate]) -> Vector:
        assert isinstance(candidates, Candidates)
        return relative(self.offers(candidates).price_s, NOTICEABLE_S)


class PairChooser:
    def __init__(self, settings: DisaggregationSettings) -> None:
        self.settings, self.transfers = settings, Transfers(settings)

    def choose(self, profile: Profile, ask: Ask) -> Chosen:
        """Raises NoPair, Busy."""
        forecaster, handed = profile.forecaster, handed_of(ask.request)
        if handed is not None:
            fetching = ask.decode.where(ask.partners.fetches_from(handed.prefill)[ask.decode.positions])
            if fetching:
                return Chosen(self._schedule(profile, ask, fetching), None, PairVerdict("remote", "handed"))
        if forecaster is None:
            return self._in_turn(profile, ask)
        cost = next((scorer for scorer, _ in profile.scorers if isinstance(scorer, Cost)), None)
        prices = Prices(forecaster, self.transfers, self.settings, cost or Cost(forecaster))
        return self._jointly(profile, ask, prices) if cost else self._in_turn(profile, ask, prices)

    def alone(self, profile: Profile, ask: Ask) -> Chosen:
        """A decode engine for a request that can't be handed over. Raises Busy."""
        able = ask.decode.where(ask.partners.can_be_local[ask.decode.positions])
        return Chosen(
            self._schedule(profile, ask, able or ask.decode), None, PairVerdict("local", "one_engine_only")
        )  # fmt: skip

    def _jointly(self, profile: Profile, ask: Ask, prices: Prices) -> Chosen:
        kept, busy = self._prefill_kept(profile, ask)
        side = prices.prefill_side(ask.request, kept, len(ask.partners.prefill))
        scorer = PairCost(lambda candidates: self._offers(prices, ask, candidates, side))
        able = self._able(ask.decode, scorer.offers(ask.decode))
        if not able:
            raise busy or NoPair
        scorers: tuple[tuple[Scorer, float], ...] = tuple(
            (scorer if isinstance(known, Cost) else known, weight) for known, weight in profile.scorers
        )
        decision = self._schedule(dataclasses.replace(profile, scorers=scorers), ask, able)
        return self._as_chosen(ask, decision, scorer.offers(decision.candidates))

    def _in_turn(self, profile: Profile, ask: Ask, prices: Prices | None = None) -> Chosen:
        """The decode engine as the profile likes it, then the prefill engine likewise."""
        kept, busy = self._prefill_kept(profile, ask)
        partners, costs = ask.partners, np.full(max(len(ask.partners.prefill), 1), np.inf)
        if kept is not None:
            costs[kept.positions] = 0.0
        at = ask.decode.positions
        has_partner, can_be_local = partners.best(costs)[at] != NONE, partners.can_be_local[at]
        able = ask.decode.where(has_partner) or ask.decode.where(can_be_local)
        if not able:
            raise busy or NoPair
        decision = self._schedule(profile, ask, able)
        i = able.pool.keys.index(decision.chosen.backend.key)
        mates = None if kept is None else kept.where(partners.may_pair(i)[kept.positions])
        if not mates:
            return Chosen(decision, None, PairVerdict("local", "no_prefill_engine"))
        prefill = profile.schedule(ask.request, mates, ask.timer, ask.meter).chosen
        if prices is None:
            return Chosen(decision, prefill, PairVerdict("remote", "faster"))
        one = mates.where(np.array([key == prefill.backend.key for key in mates.keys], dtype=np.bool_))
        side = prices.prefill_side(ask.request, one, len(partners.prefill))
        alone = Candidates(able.pool, np.array([i], dtype=np.int64))
        offers = self._offers(prices, ask, alone, side)
        return Chosen(decision, None if offers.is_local[0] else prefill, offers.verdict(0, FAILED in ask.request.memo))

    def _offers(self, prices: Prices, ask: Ask, candidates: Candidates, side: PrefillSide) -> Offers:
        return prices.offers(
            ask.request, candidates, ask.partners, side, tokens_max=ask.tokens_max, is_concurrent=ask.is_concurrent,
            may_be_remote=FAILED not in ask.request.memo or not ask.partners.can_be_local.any(),
        )  # fmt: skip

    def _able(self, decode: Candidates, offers: Offers) -> Candidates:
        """Without those that can't serve it; a configured threshold makes the others a last resort too."""
        able = np.isfinite(offers.price_s)
        if offers.tokens_max is not None:
            wanted = able & ((offers.partner != NONE) | (offers.uncached_tokens <= offers.tokens_max))
            able = wanted if wanted.any() else able
        return decode.where(able)

    def _as_chosen(self, ask: Ask, decision: Decision, offers: Offers) -> Chosen:
        i = list(decision.candidates.keys).index(decision.chosen.backend.key)
        verdict = offers.verdict(i, FAILED in ask.request.memo)
        if verdict.way == "local":
            return Chosen(decision, None, verdict)
        return Chosen(decision, ask.prefill.pool.candidates[int(offers.partner[i])], verdict)

    def _prefill_kept(self, profile: Profile, ask: Ask) -> tuple[Candidates | None, Busy | None]:
        if not ask.prefill:
            return None, None
        try:
            return profile.filter(ask.request, ask.prefill, ask.timer, ask.meter), None
        except Busy as busy:
            return None, busy

    def _schedule(self, profile: Profile, ask: Ask, candidates: Candidates) -> Decision:
        return profile.schedule(ask.request, candidates, ask.timer, ask.meter)
