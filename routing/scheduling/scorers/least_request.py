"""Prefers the engine with the fewest requests in flight; one that waits weighs as much as a hundred that run.

base = in flight + 100 · max(in flight − running, 0); score = (max − base) / max, and 1 for all when all are idle
(the formula of Kthena's plugin of this name). `running` is the engine's own number; while it is unknown, all run. So
they do while the engine says that none waits: its number is up to a scrape period old, and what has been sent since
would otherwise look like a queue and send everything to whichever engine was asked last.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hekla.routing import load_columns as col
from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.candidates import Candidates
from hekla.routing.scheduling.interface import Candidate, RequestView

WAITING_WEIGHT = 100


class LeastRequest:
    name = "least-request"

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        loads = Candidates.of(candidates).loads
        in_flight = loads[col.REQUESTS]
        # How many the engine runs at most is known only while it holds others back.
        running = np.where(loads[col.WAITING] == 0, np.nan, loads[col.RUNNING])
        bases = base(in_flight, running)
        most = bases.max()
        return np.ones(len(bases)) if most == 0 else (most - bases) / most


def base(in_flight: Vector, running: Vector) -> Vector:
    """NaN: not known how many run."""
    waiting: Vector = np.fmax(in_flight - running, 0.0)
    return in_flight + WAITING_WEIGHT * waiting
