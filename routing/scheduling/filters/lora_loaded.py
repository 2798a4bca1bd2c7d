"""For a request to a LoRA adapter, keeps engines that have it loaded.

An engine that says nothing of what it serves is kept too. When none says that it has the adapter, all are kept: it may
have been loaded a moment ago by somebody else, and if not, the engine's own answer says so.
"""

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
        has = has_model(among.pool, request.upstream_model)
        return among.where(has[among.positions]) if has.any() else candidates


def has_model(pool: Pool, model: str) -> Mask:
    """Which engines of the pool answer to the name; made once per pool and name."""

    def look(pool: Pool) -> Mask:
        return np.array(
            [not candidate.backend.models or model in candidate.backend.models for candidate in pool.candidates],
            dtype=np.bool_,
        )

    return pool.keep(("has-model", model), look)
