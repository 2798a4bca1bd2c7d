"""Prefers the least product of prompt tokens to compute and requests in flight: LMetric, without any parameter.

(queued uncached tokens + this request's) · (requests + 1). The product is what sending it there costs all who are there;
the score is the least product over its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.forecast import Forecaster
from hekla.routing.scheduling.interface import Candidate, RequestView
from hekla.routing.scheduling.scorers.cost import relative


class PrefillTimesBatch:
    name = "prefill-times-batch"

    def __init__(self, forecaster: Forecaster) -> None:
        self._forecaster = forecaster

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        f = self._forecaster.forecast(request, candidates)
        return relative((f.queue_tokens + f.uncached_tokens) * (f.batch + 1), 1.0)
