"""AIBrix' `prefix-cache`: if running requests differ by more than 8, the least; else the best match among engines that run
at most the mean plus one standard deviation; else the least.
"""

from __future__ import annotations

from collections.abc import Sequence

from hekla.routing import load_columns as col
from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.interface import Candidate, PrefixKnowledge, RequestView
from hekla.simulation.baselines.rules import as_candidates, lowest, match_of


class AibrixLike:
    name = "aibrix-like"

    def __init__(self, knowledge: PrefixKnowledge, *, imbalance: int = 8) -> None:
        self._knowledge, self._imbalance = knowledge, imbalance

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        chosen = as_candidates(candidates)
        running = chosen.loads[col.REQUESTS]
        if running.max() - running.min() > self._imbalance:
            return lowest(running)
        match = match_of(request, chosen, self._knowledge)
        calm = running <= running.mean() + running.std()
        if not match.tokens.any() or not (calm & (match.tokens > 0)).any():
            return lowest(running)
        best = match.tokens[calm].max()
        return lowest(running, calm & (match.tokens == best))
