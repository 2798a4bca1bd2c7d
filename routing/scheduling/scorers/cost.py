"""What sending a request to an engine costs everybody, in seconds: the least cost scores 1, one twice as high half.

    cost = queue + memory wait                          until its prefill begins
         + prefill · (1 + n + rent)                     its prefill, the wait it is to the n who are there, and what
                                                        its KV cache will displace one day
         + kappa · displaced                            computing again what it throws out of a full cache while another
                                                        engine has room
         + d · (O · step(n+1) + n · O · (step(n+1) − step(n)))
                                                        its O output tokens, and how much slower it makes the others'

Everything in seconds, so engines of different speed compare, and cached tokens, queues and batches need no weights
against each other. n·prefill is the insight of LMetric (the externality of a prefill), d balances latency of the first
token against throughput.
"""

from __future__ import annotations

from collections.abc import Sequence

from hekla.routing import load_columns as col
from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.forecast import Forecaster, Forecasts
from hekla.routing.scheduling.interface import Candidate, RequestView

DECODE_WEIGHT = 0.6
RENT = 3.0
DISPLACEMENT = 6.0
NOTICEABLE_S = 1e-3
"""Costs are compared after adding this: without it an idle engine would make all others score nothing."""


class Cost:
    name = "cost"

    def __init__(
        self, forecaster: Forecaster, *, d: float = DECODE_WEIGHT, rho: float = RENT, kappa: float = DISPLACEMENT
    ) -> None:
        self._forecaster, self.d, self.rho, self.kappa = forecaster, d, rho, kappa

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        f = self._forecaster.forecast(request, candidates)
        # An engine that has just come costs more than it takes, until its caches and its rates are warm.
        return relative(self.seconds(f) / f.candidates.loads[col.WARMUP_SHARE], NOTICEABLE_S)

    def seconds(self, f: Forecasts) -> Vector:
        """Per candidate."""
        n = f.batch
        compute_s = f.uncached_tokens * f.prefill_token_s
        overhead_s = f.prefill_s - compute_s
        decode_s = f.output_tokens * (f.step_s + n * (f.step_s - f.step_now_s))
        rent_s = self.rho * compute_s
        if self.kappa:
            rent_s = rent_s + self.kappa * self._forecaster.displaced(f) * f.prefill_token_s
        cost: Vector = f.queue_s + f.memory_wait_s + overhead_s + compute_s * (1.0 + n) + rent_s + self.d * decode_s
        return cost


def relative(costs: Vector, noticeable: float) -> Vector:
    """The least cost over each, in (0, 1]: strictly falling in the cost, so the order is that of the costs."""
    shifted = costs + noticeable
    score: Vector = shifted.min() / shifted
    return score
