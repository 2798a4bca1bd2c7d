"""llm-d's sticky-until-saturated: engines with at least 80 % of the prompt cached, unless their predicted first token is
more than τ = 18 s later than the best other's; among those the least uncached tokens in flight.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hekla.routing import load_columns as col
from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.interface import Candidate, PrefixKnowledge, RequestView
from hekla.simulation.baselines.rules import as_candidates, lowest, match_of


class LlmdSticky:
    name = "llm-d-sticky"

    def __init__(
        self, knowledge: PrefixKnowledge, *, share: float = 0.8, tau_s: float = 18.0, peak_tokens_s: float = 15_928.0
    ) -> None:
        self._knowledge, self._share, self._tau_s, self._peak = knowledge, share, tau_s, peak_tokens_s

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        chosen = as_candidates(candidates)
        match = match_of(request, chosen, self._knowledge)
        load = chosen.loads[col.PREFILL] + (match.total - match.tokens)
        sticky = match.share >= self._share
        if not sticky.any() or sticky.all():
            return lowest(load)
        ttft_s = chosen.loads[col.PREFILL] / self._peak
        if ttft_s[sticky].min() - ttft_s[~sticky].min() > self._tau_s:
            return lowest(load)
        return lowest(load, np.asarray(sticky))
