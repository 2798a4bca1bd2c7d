"""Leaves out engines whose context length is too short for the prompt and the output asked for.

Unless that would leave none: then any engine tells the client, in the words of its API, how long a prompt may be. An
estimate of the prompt's tokens may be a third off, so only what is far too long for an engine is kept from it then.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.candidates import Candidates, Pool
from hekla.routing.scheduling.interface import Candidate, RequestView
from hekla.routing.scheduling.knowledge import prompt_tokens

ESTIMATE_MARGIN = 1.3


class ContextFits:
    name = "context-fits"
    spares_last = True

    def keep(self, request: RequestView, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        among = Candidates.of(candidates)
        longest = among.at(among.pool.keep("context-lengths", _lengths))
        if not longest.any():
            return among
        margin = 1.0 if request.token_ids is not None else ESTIMATE_MARGIN
        needed = prompt_tokens(request) / margin + request.output_tokens_max
        return among.where((longest == 0) | (needed <= longest)) or among


def _lengths(pool: Pool) -> Vector:
    """0 while unknown."""
    return np.array([candidate.backend.max_model_len for candidate in pool.candidates], dtype=np.float64)
