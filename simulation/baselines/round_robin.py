"""One after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.interface import Candidate, RequestView


class RoundRobin:
    name = "round-robin"

    def __init__(self) -> None:
        self._next = 0

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        found = np.zeros(len(candidates))
        found[self._next % len(candidates)] = 1.0
        self._next += 1
        return found
