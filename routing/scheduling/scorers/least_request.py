"""Prefers the engine with the fewest requests in flight; one that waits weighs as much as a hundred that run.

base = in flight + 100 · max(in flight − running, 0); score = (max − base) / max, and 1 for all when all are idle
(the formula of Kthena's plugin of this name). `running` is the engine's own number; while it is unknown, all run. So
they do while the engine says that none waits: its number is up to a scrape period old, and what has been sent since
would otherwise look like a queue and send everything to whichever engine was asked last.
"""

from __future__ import annotations

from collections.abc import Sequence

from hekla.routing.load import EngineLoad
from hekla.routing.scheduling.interface import Candidate, RequestView

WAITING_WEIGHT = 100


class LeastRequest:
    name = "least-request"

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> list[float]:
        bases = [base(c.load.requests, _saturated_at(c.load)) for c in candidates]
        most = max(bases)
        return [1.0] * len(bases) if most == 0 else [(most - b) / most for b in bases]


def _saturated_at(load: EngineLoad) -> int | None:
    """How many the engine runs at most, known only while it holds others back."""
    return None if load.engine_waiting == 0 else load.running


def base(in_flight: int, running: int | None) -> int:
    waiting = 0 if running is None else max(in_flight - running, 0)
    return in_flight + WAITING_WEIGHT * waiting
