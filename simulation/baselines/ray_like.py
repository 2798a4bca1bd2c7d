"""Ray Serve LLM's prefix-affinity router: queues that differ by more than 10 → power of two; a match of at least 10 % → the
best match; else (the replica with the smallest tree) the least loaded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hekla.routing import load_columns as col
from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.candidates import Mask
from hekla.routing.scheduling.interface import Candidate, PrefixKnowledge, RequestView
from hekla.simulation.baselines.rules import as_candidates, lowest, match_of


class RayLike:
    name = "ray-like"

    def __init__(self, knowledge: PrefixKnowledge, *, imbalance: int = 10, share: float = 0.1) -> None:
        self._knowledge, self._imbalance, self._share = knowledge, imbalance, share

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        chosen = as_candidates(candidates)
        queue = chosen.loads[col.REQUESTS]
        if queue.max() - queue.min() > self._imbalance:
            return lowest(queue, _two(request, len(chosen)))
        match = match_of(request, chosen, self._knowledge)
        best = match.share.max()
        return lowest(queue, match.share == best) if best >= self._share else lowest(queue)


def _two(request: RequestView, count: int) -> Mask:
    """Marks two candidates at random, or the only one."""
    first = int(request.random * count)
    second = (first + 1 + int(request.random * (count - 1))) % count
    found = np.zeros(count, dtype=np.bool_)
    found[[first, second]] = True
    return found
