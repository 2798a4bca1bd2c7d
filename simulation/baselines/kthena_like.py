"""Kthena's best published pair, least-request + kvcache-aware with equal weights, on its own state: the engines' queues as
polled once a second, and at most 128 blocks looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hekla.routing import load_columns as col
from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.interface import Candidate, PrefixKnowledge, RequestView
from hekla.simulation.baselines.rules import as_candidates, match_of, spread
from hekla.simulation.view import SimView

BLOCKS_MAX = 128
WAITING_WEIGHT = 100
"""What a waiting request counts against a running one, at the time of the published numbers."""


class KthenaLike:
    name = "kthena-like"

    def __init__(self, knowledge: PrefixKnowledge) -> None:
        self._knowledge = knowledge

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        assert isinstance(request, SimView)
        chosen = as_candidates(candidates)
        running, waiting = (np.nan_to_num(chosen.loads[column]) for column in (col.RUNNING, col.WAITING))
        match = match_of(request, chosen, self._knowledge)
        seen = BLOCKS_MAX * request.block_tokens
        cached: Vector = np.minimum(match.tokens, seen) / min(match.total, seen)
        return (spread(running + WAITING_WEIGHT * waiting) + cached) / 2
