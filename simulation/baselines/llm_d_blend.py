"""llm-d's weighted blend 3:2:2: prefix match, queue and KV use, each scaled to [0, 1] over the candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hekla.routing import load_columns as col
from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.forecast import Forecaster
from hekla.routing.scheduling.interface import Candidate, RequestView
from hekla.simulation.baselines.rules import as_candidates, match_of, spread


class LlmdBlend:
    """Queue and KV use are those of work in flight, fresher than the scraped metrics of the original."""

    name = "llm-d-blend"

    def __init__(self, forecaster: Forecaster, *, prefix: float = 3.0, queue: float = 2.0, kv: float = 2.0) -> None:
        self._forecaster, self._weights = forecaster, (prefix, queue, kv)

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        chosen = as_candidates(candidates)
        forecasts = self._forecaster.forecast(request, chosen)
        held = forecasts.kv_share - forecasts.uncached_tokens / np.maximum(self._capacity(chosen), 1.0)
        match = match_of(request, chosen, self._forecaster.knowledge)
        prefix, queue, kv = self._weights
        total: Vector = (
            prefix * match.share + queue * spread(chosen.loads[col.REQUESTS]) + kv * (1 - np.clip(held, 0, 1))
        )
        blended: Vector = total / (prefix + queue + kv)
        return blended

    def _capacity(self, chosen: Sequence[Candidate]) -> Vector:
        rates = self._forecaster.rates
        return np.array([rates.rates(candidate.backend).kv_capacity_tokens for candidate in chosen])
