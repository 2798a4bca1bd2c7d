"""SGLang gateway's `cache_aware`: unless the queues are imbalanced (difference above 64 and above 1.5 times the shortest)
the engine with the longest match, if that is more than 30 % of the prompt; else the shortest queue.
"""

from __future__ import annotations

from collections.abc import Sequence

from hekla.routing import load_columns as col
from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.interface import Candidate, PrefixKnowledge, RequestView
from hekla.simulation.baselines.rules import as_candidates, lowest, match_of


class SglangLike:
    name = "sglang-like"

    def __init__(
        self, knowledge: PrefixKnowledge, *, difference: int = 64, ratio: float = 1.5, share: float = 0.3
    ) -> None:
        self._knowledge, self._difference, self._ratio, self._share = knowledge, difference, ratio, share

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        chosen = as_candidates(candidates)
        queue = chosen.loads[col.REQUESTS]
        high, low = queue.max(), queue.min()
        if high - low > self._difference and high > self._ratio * low:
            return lowest(queue)
        match = match_of(request, chosen, self._knowledge)
        best = match.share.max()
        return lowest(queue, match.share == best) if best > self._share else lowest(queue)
