"""By rendezvous hash of the session, else of the prompt's beginning: no load, no cache, perfect stickiness."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.interface import Candidate, RequestView
from hekla.simulation.baselines.rules import as_candidates
from hekla.simulation.view import SimView


class ConsistentHash:
    name = "consistent-hash"

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        assert isinstance(request, SimView)
        key = request.session or str(request.blocks[0] if request.blocks else request.request.id)
        keys = as_candidates(candidates).keys
        return np.array([_weight(key, engine) for engine in keys])


def _weight(key: str, engine: str) -> float:
    return int.from_bytes(blake2b(f"{key}/{engine}".encode(), digest_size=6).digest(), "big") / (1 << 48)
