"""For a request to a LoRA adapter, keeps engines that have it loaded. Off by default: not every engine reports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hekla.routing.scheduling.candidates import Candidates, Mask, Pool
from hekla.routing.scheduling.interface import Candidate, RequestView


class LoraLoaded:
    name = "lora-affinity"

    def keep(self, request: RequestView, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        if not request.is_adapter:
            return candidates
        among = Candidates.of(candidates)
        return among.where(has_model(among.pool, request.upstream_model)[among.positions])


def has_model(pool: Pool, model: str) -> Mask:
    """Which engines of the pool answer to the name; made once per pool and name."""

    def look(pool: Pool) -> Mask:
        return np.array([model in candidate.backend.models for candidate in pool.candidates], dtype=np.bool_)

    return pool.keep(("has-model", model), look)
