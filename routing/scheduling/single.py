"""The forecast for a single engine, in plain numbers: what `forecast.py` computes for many at once. Pure.

Where there is nothing to choose among, arrays of one number would cost more than all else in a decision. Both must say
the same: a test compares them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hekla.routing import load_columns as col
from hekla.routing.scheduling.interface import Candidate
from hekla.routing.scheduling.rates import EngineRates

FOREIGN_PROMPT_TOKENS = 512
"""What a request that came past the ingress is taken to wait with: its prompt is not known here."""
HEAD_DONE_MAX = 0.9
"""A prefill that has not ended is not taken to be done, however long ago it should have been."""


@dataclass(frozen=True)
class Forecast:
    """Of one request on one engine."""

    matched_tokens: float
    """Of its prompt, in the engine's cache."""
    uncached_tokens: float
    """Of its prompt, to be computed; at least 1."""
    queue_s: float
    """Until the prefills before it are done."""
    prefill_s: float
    """Its own."""
    step_s: float
    """From one output token to the next, once it is among those that decode."""
    memory_wait_s: float
    """Until requests have ended whose KV cache it needs."""
    kv_share: float
    """KV cache held, with this request's prompt, over capacity; what the engine reports while that is unknown, else 0."""
    queue_tokens: float = 0.0
    """Prompt tokens to be computed before its own."""

    @property
    def ttft_s(self) -> float:
        return self.queue_s + self.memory_wait_s + self.prefill_s


def forecast_of_one(
    candidate: Candidate, speed: EngineRates, *, headroom: float, now_s: float, prompt_tokens: int,
    matched_tokens: float, output_tokens_max: int,
) -> Forecast:  # fmt: skip
    """`matched_tokens` of the prompt are in its cache; `output_tokens_max` of 0: the client sets no limit."""
    loads: list[float] = candidate.load.vector.tolist()
    batch = loads[col.REQUESTS] + loads[col.FOREIGN]
    uncached = max(prompt_tokens - matched_tokens, 1.0)
    queued = _still_queued(loads, speed.prefill_tokens_s, now_s)
    output = min(speed.output_tokens, output_tokens_max) if output_tokens_max > 0 else speed.output_tokens
    context = loads[col.CONTEXT] + prompt_tokens + output / 2
    step_s = speed.step_s(batch + 1, context)
    share, wait_s = _memory(loads, speed, uncached, headroom=headroom, step_s=step_s)
    prefill_s = uncached / speed.prefill_tokens_s + speed.overhead_s
    return Forecast(
        matched_tokens, uncached, queued / speed.prefill_tokens_s, prefill_s, step_s, wait_s, share, queued
    )  # fmt: skip


def _still_queued(loads: list[float], tokens_s: float, now_s: float) -> float:
    """Prompt tokens ahead, less what the engine must have done of the prefill at its head."""
    done = min(max((now_s - loads[col.HEAD_SINCE_S]) * tokens_s, 0.0), loads[col.HEAD_TOKENS] * HEAD_DONE_MAX)
    return max(loads[col.PREFILL] - done, 0.0) + FOREIGN_PROMPT_TOKENS * loads[col.FOREIGN_WAITING]


def _memory(
    loads: list[float], speed: EngineRates, uncached: float, *, headroom: float, step_s: float
) -> tuple[float, float]:
    """The share of its KV cache that is held, and how long to wait for some of it."""
    capacity, batch = speed.kv_capacity_tokens, loads[col.REQUESTS] + loads[col.FOREIGN]
    if capacity <= 0:
        reported = loads[col.KV_USAGE]
        return (reported if reported > 0 else 0.0), 0.0
    held = _held(loads, capacity)
    growth = (batch - loads[col.STREAMING] + 1) * speed.output_tokens / 2
    excess = held + uncached + growth - headroom * capacity
    if excess <= 0 or batch <= 0 or held <= 0:
        return (held + uncached) / capacity, 0.0
    ending = min(excess * batch / held, batch)
    return (held + uncached) / capacity, ending * speed.output_tokens * step_s / batch


def _held(loads: list[float], capacity: float) -> float:
    """Tokens of KV cache in use: as counted, or less when the engine has reported less."""
    counted, then, usage, waiting = loads[col.KV], loads[col.KV_AT_REPORT], loads[col.KV_USAGE], loads[col.WAITING]
    if math.isnan(usage + then):  # not reported, or nobody else counts
        return counted
    waited = (waiting if waiting > 0 else 0.0) * then / max(loads[col.REQUESTS], 1.0)
    return min(max(usage * capacity + counted - then + waited, 0.0), counted)
