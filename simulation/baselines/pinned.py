"""The static oracle: every prefix group has its engine, given out by hand before the start. Without a group: the least busy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hekla.routing import load_columns as col
from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.interface import Candidate, RequestView
from hekla.simulation.baselines.rules import as_candidates, lowest
from hekla.simulation.view import SimView


class Pinned:
    name = "pinned"

    def __init__(self, home: Callable[[int], int]) -> None:
        self._home = home

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        assert isinstance(request, SimView)
        chosen = as_candidates(candidates)
        if request.request.group < 0:
            return lowest(chosen.loads[col.REQUESTS])
        found = np.zeros(len(chosen))
        found[self._home(request.request.group) % len(chosen)] = 1.0
        return found
