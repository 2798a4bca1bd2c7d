"""Prefers the engine that answered fastest lately: α · time to first token + (1 − α) · time per output token.

Each is stretched linearly between the slowest (0) and the fastest (1) engine; without a difference all score 1 (the
formula of Kthena's plugin of this name). An engine of which either is unknown scores 0.5 and stretches nothing: a new
engine is neither shunned nor flooded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hekla.routing import load_columns as col
from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.candidates import Candidates
from hekla.routing.scheduling.interface import Candidate, RequestView

UNKNOWN_SCORE = 0.5


class LeastLatency:
    name = "least-latency"

    def __init__(self, alpha: float = 0.5) -> None:
        self._alpha = alpha

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        loads = Candidates.of(candidates).loads
        ttft, tpot = loads[col.TTFT_S], loads[col.TPOT_S]
        known = (ttft > 0) & (tpot > 0)  # false for what is unknown (NaN)
        scores = np.full(len(ttft), UNKNOWN_SCORE)
        if known.any():
            scores[known] = self._alpha * _stretched(ttft[known]) + (1 - self._alpha) * _stretched(tpot[known])
        return scores


def _stretched(seconds: Vector) -> Vector:
    slowest, fastest = seconds.max(), seconds.min()
    if slowest == fastest:
        return np.ones(len(seconds))
    stretched: Vector = (slowest - seconds) / (slowest - fastest)
    return stretched
