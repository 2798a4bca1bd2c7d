"""The less loaded of two drawn by lot (Mitzenmacher's power of two choices): the plugin `power-of-two`.

The better scores 1, the other 0.5, all that were not drawn 0. Within fleets of thousands it spreads load nearly as well
as looking at all of them, and with stale numbers better.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hekla.routing import load_columns as col
from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.candidates import Candidates
from hekla.routing.scheduling.interface import Candidate, RequestView


class PowerOfTwo:
    name = "power-of-two"

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        requests = Candidates.of(candidates).loads[col.REQUESTS]
        count = len(requests)
        scores = np.zeros(count)
        first = int(request.random * count)
        if count > 1:
            second = (first + 1 + int(request.random * (count - 1))) % count
            if requests[second] < requests[first]:
                first, second = second, first
            scores[second] = 0.5
        scores[first] = 1.0
        return scores
