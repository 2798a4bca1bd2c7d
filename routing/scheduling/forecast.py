"""What sending a request to an engine would mean, in seconds: for every candidate at once. Pure.

The queue ahead is prompt tokens that requests before it still need computed, less what the engine must have done of
the one it works on; its own prefill is what the engine's cache does not hold. Both over the engine's learned rate.
Memory is waited for when what is held, and half an answer for each request that has not begun to answer, no longer fits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import overload

import numpy as np

from hekla.routing import load_columns as col
from hekla.routing.load_columns import Vector
from hekla.routing.scheduling import rates as rate
from hekla.routing.scheduling.candidates import Candidates
from hekla.routing.scheduling.interface import Candidate, PrefixKnowledge, RequestView
from hekla.routing.scheduling.knowledge import matched, prompt_tokens
from hekla.routing.scheduling.rates import RateBook
from hekla.routing.scheduling.single import FOREIGN_PROMPT_TOKENS, HEAD_DONE_MAX, Forecast, forecast_of_one

__all__ = ["HEADROOM", "Forecast", "Forecaster", "Forecasts"]

HEADROOM = 0.95
"""Share of a KV cache from which requests begin to wait for memory: blocks are allocated whole, and some are in use twice."""


NOT_TOLD: Mapping[str, int] = MappingProxyType({})


class Forecasts(Sequence[Forecast]):
    """One per candidate, as arrays; indexing makes the `Forecast`. Further arrays are for scorers."""

    __slots__ = (
        "batch", "candidates", "kv_share", "matched_tokens", "memory_wait_s", "now_s", "output_tokens", "prefill_s",
        "prefill_token_s", "prompt_tokens", "queue_s", "queue_tokens", "step_now_s", "step_s", "uncached_tokens",
    )  # fmt: skip

    candidates: Candidates
    now_s: float
    prompt_tokens: int
    batch: Vector
    """Requests in flight there before this one."""
    matched_tokens: Vector
    uncached_tokens: Vector
    queue_tokens: Vector
    output_tokens: Vector
    """How many it is expected to generate."""
    prefill_token_s: Vector
    queue_s: Vector
    prefill_s: Vector
    step_now_s: Vector
    """A step without it."""
    step_s: Vector
    memory_wait_s: Vector
    kv_share: Vector

    @property
    def ttft_s(self) -> Vector:
        return self.queue_s + self.memory_wait_s + self.prefill_s

    @overload
    def __getitem__(self, index: int) -> Forecast: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Forecast]: ...
    def __getitem__(self, index: int | slice) -> Forecast | Sequence[Forecast]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return Forecast(
            float(self.matched_tokens[index]), float(self.uncached_tokens[index]), float(self.queue_s[index]),
            float(self.prefill_s[index]), float(self.step_s[index]), float(self.memory_wait_s[index]),
            float(self.kv_share[index]), float(self.queue_tokens[index]),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.candidates)


class Forecaster:
    """Binds prefix knowledge and rates; forecasts are kept in the request's memo for the decision they were made for."""

    def __init__(
        self, knowledge: PrefixKnowledge, rates: RateBook, *, headroom: float = HEADROOM,
        cached: Mapping[str, int] = NOT_TOLD,
    ) -> None:  # fmt: skip
        """`cached` stays current: tokens in the cache, in use or not, of each engine that tells."""
        if not 0.1 <= headroom <= 1.0:
            raise ValueError(f"headroom is {headroom}; allowed: 0.1 to 1 of the KV cache")
        self.knowledge, self.rates, self.headroom, self.cached = knowledge, rates, headroom, cached
        self._memo_key = f"forecast.{id(self):x}"

    def forecast(self, request: RequestView, candidates: Sequence[Candidate]) -> Forecasts:
        """In the candidates' order. Of the same candidates it is made once."""
        chosen = Candidates.of(candidates)
        known = self.made(request)
        if known is not None and known.candidates is chosen:
            return known
        found = request.memo[self._memo_key] = self._forecast(request, chosen)
        return found

    def displaced(self, f: Forecasts) -> Vector:
        """Tokens that each candidate would throw out of its cache for this prompt although another has room for it.

        0 where a cache is not told. When all are full everyone throws something out, which tells none from another.
        """
        none = np.zeros(len(f.candidates))
        if not self.cached:
            return none
        held = np.array([self.cached.get(key, -math.inf) for key in f.candidates.keys], dtype=np.float64)
        capacity = self.rates.vectors(f.candidates)[rate.KV_CAPACITY]
        room = np.where(np.isfinite(held) & (capacity > 0), capacity - held - f.queue_tokens, math.nan)
        if np.isnan(room).all():
            return none
        elsewhere = np.clip(np.nanmax(room) / f.uncached_tokens, 0.0, 1.0)
        displaced: Vector = np.nan_to_num(np.clip(f.uncached_tokens - room, 0.0, f.uncached_tokens)) * elsewhere
        return displaced

    def made(self, request: RequestView) -> Forecasts | None:
        """Those of the request's last decision, when a plugin asked for them."""
        known = request.memo.get(self._memo_key)
        return known if isinstance(known, Forecasts) and known.now_s == request.now_s else None

    def of_chosen(self, request: RequestView, candidate: Candidate) -> Forecast:
        """Of one candidate: out of the last decision when it was among its candidates."""
        known = self.made(request)
        if known is not None:
            for i, key in enumerate(known.candidates.keys):
                if key == candidate.backend.key:
                    return known[i]
        return self._of_one(request, candidate)

    def _of_one(self, request: RequestView, candidate: Candidate) -> Forecast:
        """Out of the request's memo when it was asked for this decision already."""
        key = f"{self._memo_key}.{candidate.backend.key}"
        known: tuple[float, Forecast] | None = request.memo.get(key)
        if known is not None and known[0] == request.now_s:
            return known[1]
        prompt = prompt_tokens(request)
        held = self.knowledge.matched_tokens(request, [candidate])[0]
        found = forecast_of_one(
            candidate, self.rates.rates(candidate.backend), headroom=self.headroom, now_s=request.now_s,
            prompt_tokens=prompt, matched_tokens=min(float(held), prompt), output_tokens_max=request.output_tokens_max,
        )  # fmt: skip
        request.memo[key] = (request.now_s, found)
        return found

    def _forecast(self, request: RequestView, candidates: Candidates) -> Forecasts:
        loads, speed = candidates.loads, self.rates.vectors(candidates)
        f = Forecasts()
        f.candidates, f.now_s, f.prompt_tokens = candidates, request.now_s, prompt_tokens(request)
        f.matched_tokens = matched(request, candidates, self.knowledge)
        f.uncached_tokens = np.maximum(f.prompt_tokens - f.matched_tokens, 1.0)
        f.batch = loads[col.REQUESTS] + loads[col.FOREIGN]
        f.prefill_token_s = speed[rate.PREFILL_S]
        f.queue_tokens = _still_queued(loads, f.prefill_token_s, request.now_s)
        f.queue_s = f.queue_tokens * f.prefill_token_s
        f.prefill_s = f.uncached_tokens * f.prefill_token_s + speed[rate.OVERHEAD_S]
        f.output_tokens = speed[rate.OUTPUT_TOKENS]
        if request.output_tokens_max > 0:
            f.output_tokens = np.minimum(f.output_tokens, request.output_tokens_max)
        context, per_context = loads[col.CONTEXT], speed[rate.STEP_CONTEXT_S]
        f.step_now_s = speed[rate.STEP_BASE_S] + speed[rate.STEP_REQUEST_S] * f.batch + per_context * context
        own_context = f.prompt_tokens + f.output_tokens / 2
        f.step_s = f.step_now_s + speed[rate.STEP_REQUEST_S] + per_context * own_context
        self._memory(f, loads, speed)
        return f

    def _memory(self, f: Forecasts, loads: Vector, speed: Vector) -> None:
        """Waiting for memory: as many of the mean request must end as make up what is missing, one per O·step/n."""
        capacity = speed[rate.KV_CAPACITY]
        is_known, held = capacity > 0, _held(loads, capacity)
        room = np.where(is_known, capacity, 1.0)
        reported = np.fmax(loads[col.KV_USAGE], 0.0)  # fmax passes over what is unknown (NaN)
        f.kv_share = np.where(is_known, (held + f.uncached_tokens) / room, reported)
        # What decoders have generated is among what is held, and by the time they grow others have ended.
        growth = (f.batch - loads[col.STREAMING] + 1) * speed[rate.OUTPUT_TOKENS] / 2
        excess = held + f.uncached_tokens + growth - self.headroom * room
        short = is_known & (excess > 0) & (f.batch > 0) & (held > 0)
        f.memory_wait_s = np.zeros(len(f.candidates))
        if short.any():
            n, tokens = f.batch[short], held[short]
            lasts_s = speed[rate.OUTPUT_TOKENS][short] * f.step_s[short]
            f.memory_wait_s[short] = np.minimum(excess[short] * n / tokens, n) * lasts_s / n


def _still_queued(loads: Vector, token_s: Vector, now_s: float) -> Vector:
    """Prompt tokens ahead, less what the engine must have done of the prefill at its head."""
    head = loads[col.HEAD_TOKENS]
    done = np.minimum(np.maximum((now_s - loads[col.HEAD_SINCE_S]) / token_s, 0.0), head * HEAD_DONE_MAX)
    left: Vector = np.maximum(loads[col.PREFILL] - done, 0.0) + FOREIGN_PROMPT_TOKENS * loads[col.FOREIGN_WAITING]
    return left


def _held(loads: Vector, capacity: Vector) -> Vector:
    """Tokens of KV cache in use: as counted, or less when the engine has reported less.

    Every replica counts a prefix once, the engine holds it once for all. So what it reported counts, what has been
    counted since, and the requests that waited in it then, at the mean of what one holds.
    """
    counted, then = loads[col.KV], loads[col.KV_AT_REPORT]
    waited = np.fmax(loads[col.WAITING], 0.0) * then / np.maximum(loads[col.REQUESTS], 1.0)
    reported = loads[col.KV_USAGE] * capacity + counted - then + waited
    held: Vector = np.fmin(np.maximum(reported, 0.0), counted)  # fmin passes over what is unknown (NaN)
    return held
