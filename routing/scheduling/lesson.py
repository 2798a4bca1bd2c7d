"""What one request's times teach about its engine. Pure.

A first token's time is explained by the tokens computed before it; the time between tokens by how many requests and
how much context the batch held meanwhile, as means over the answer's life (`Meters`). Where memory was waited for,
time says nothing of speed and is not learned from.
"""

from __future__ import annotations

from typing import NamedTuple

from hekla.routing.load import LoadBook
from hekla.routing.scheduling.forecast import Forecast
from hekla.routing.scheduling.interface import Candidate
from hekla.routing.scheduling.rates import RateBook

RECENT = 0.1
"""Weight of the latest request in an engine's mean latencies, about the last ten."""
KV_SHARE_MAX = 0.95
"""Above it requests wait for memory."""
UNSEEN_SHARE_MAX = 0.5
"""Of an answer whose first token was not seen: no step is learned when the prefill was forecast to take more of it."""


class Area(NamedTuple):
    """Integrals over time."""

    streaming_s: float = 0.0
    """Requests decoding."""
    context_s: float = 0.0
    """Tokens they attend to."""
    at_s: float = 0.0


class Meters:
    """The integrals of every engine's load, so that a mean over any span is a difference."""

    def __init__(self, loads: LoadBook) -> None:
        self._loads = loads
        self._areas: dict[str, Area] = {}

    def settle(self, engine: str, now_s: float) -> None:
        """To be called before the engine's load changes."""
        area, load = self._areas.get(engine), self._loads.load(engine)
        if area is None:
            self._areas[engine] = Area(at_s=now_s)
            return
        span_s = max(now_s - area.at_s, 0.0)
        context = load.context_tokens * load.streaming / max(load.requests, 1)
        self._areas[engine] = Area(
            area.streaming_s + load.streaming * span_s, area.context_s + context * span_s, max(now_s, area.at_s)
        )

    def read(self, engine: str) -> Area:
        """As of the last `settle`."""
        return self._areas.get(engine, Area())

    def forget(self, known: set[str]) -> None:
        for engine in self._areas.keys() - known:
            del self._areas[engine]


class Lesson:
    """One request's, on one engine."""

    __slots__ = ("_begun_s", "_first_s", "_forecast", "_is_clear", "_start", "_was_seen")

    def __init__(self, forecast: Forecast, now_s: float) -> None:
        self._forecast, self._begun_s = forecast, now_s
        self._is_clear = forecast.memory_wait_s == 0 and forecast.kv_share < KV_SHARE_MAX
        self._first_s: float | None = None
        self._start: Area | None = None
        self._was_seen = False

    def first_token(self, candidate: Candidate, rates: RateBook, now_s: float) -> None:
        self._was_seen = True
        if rates.may_learn("prefill", candidate.backend, now_s):
            self._take_ttft(candidate, rates, now_s - self._begun_s)

    def decodes(self, area: Area, now_s: float) -> None:
        """From now on, seen or forecast, tokens come one after another."""
        if self._start is None:
            self._first_s, self._start = now_s, area

    def ended(self, candidate: Candidate, rates: RateBook, area: Area, tokens: int, now_s: float) -> None:
        """`tokens` were generated in all."""
        if not self._was_seen and tokens <= 1:
            if rates.may_learn("prefill", candidate.backend, now_s):
                self._take_ttft(candidate, rates, now_s - self._begun_s)
            return
        if self._first_s is None or self._start is None or tokens < 2:
            return
        if not rates.may_learn("step", candidate.backend, now_s):
            return
        span_s, life_s = now_s - self._first_s, now_s - self._begun_s
        if span_s <= 0 or (not self._was_seen and span_s < UNSEEN_SHARE_MAX * life_s):
            return
        step_s, metered_s = span_s / (tokens - 1), max(area.at_s - self._start.at_s, 1e-9)
        requests = max((area.streaming_s - self._start.streaming_s) / metered_s, 1.0)
        context = max((area.context_s - self._start.context_s) / metered_s, 0.0)
        rates.observe_step(candidate.backend, requests, context, step_s)
        if self._was_seen:
            rates.observe_errors(candidate.backend, tpot=abs(self._forecast.step_s - step_s) / step_s)
        candidate.load.tpot_s = _mean(candidate.load.tpot_s, step_s)

    def _take_ttft(self, candidate: Candidate, rates: RateBook, seconds: float) -> None:
        if seconds <= 0:
            return
        forecast, backend = self._forecast, candidate.backend
        rates.observe_errors(backend, ttft=abs(forecast.ttft_s - seconds) / seconds)
        if self._is_clear:
            rates.observe_first_token(backend, forecast.queue_tokens + forecast.uncached_tokens, seconds)
        candidate.load.ttft_s = _mean(candidate.load.ttft_s, seconds)


def _mean(before: float | None, latest: float) -> float:
    return latest if before is None else before + RECENT * (latest - before)
