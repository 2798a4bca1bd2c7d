"""Prefers the engine with the most room in its KV cache: 1 − the share in use. Old name: `gpu-usage`.

The share is what the engine reported last or what requests in flight are known to hold, whichever is more: a report is
up to a second old, and until the next one everybody would choose the same engine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hekla.routing import load_columns as col
from hekla.routing.load_columns import Vector
from hekla.routing.scheduling import rates as rate
from hekla.routing.scheduling.candidates import Candidates
from hekla.routing.scheduling.interface import Candidate, RequestView
from hekla.routing.scheduling.rates import RateBook


class KvUsage:
    name = "kv-usage"

    def __init__(self, rates: RateBook) -> None:
        self._rates = rates

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        among = Candidates.of(candidates)
        capacity = self._rates.vectors(among)[rate.KV_CAPACITY]
        held = np.where(capacity > 0, among.loads[col.KV] / np.maximum(capacity, 1.0), 0.0)
        reported = np.fmax(among.loads[col.KV_USAGE], 0.0)  # fmax passes over what is unknown (NaN)
        free: Vector = 1.0 - np.clip(np.maximum(held, reported), 0.0, 1.0)
        return free
