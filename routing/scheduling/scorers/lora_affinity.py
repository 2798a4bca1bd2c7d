"""For a request to a LoRA adapter, prefers engines where it costs least to run.

1 where it runs now, 0.8 where it is loaded or there is room for it, 0.6 where it waits for its turn, 0 where other
adapters fill every slot. Requests to the base model score 1 everywhere. An engine that reports nothing is judged by the
names it answers to.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.candidates import Candidates
from hekla.routing.scheduling.interface import Candidate, RequestView

ACTIVE, ROOM, WAITING, FULL = 1.0, 0.8, 0.6, 0.0


class LoraAffinity:
    name = "lora-affinity"

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        if not request.is_adapter:
            return np.ones(len(candidates))
        adapter = request.upstream_model
        return np.array([_score(adapter, candidate) for candidate in Candidates.of(candidates)])


def _score(adapter: str, candidate: Candidate) -> float:
    state = candidate.load.adapters
    if state is None:
        return ROOM if adapter in candidate.backend.models else FULL
    if adapter in state.active:
        return ACTIVE
    if adapter in state.waiting:
        return WAITING
    return ROOM if not state.slots or len(state.active | state.waiting) < state.slots else FULL
