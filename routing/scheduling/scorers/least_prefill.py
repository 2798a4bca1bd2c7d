"""Prefers the engine with the fewest prompt tokens still to prefill: a long prompt delays whoever comes after it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hekla.routing import load_columns as col
from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.candidates import Candidates
from hekla.routing.scheduling.interface import Candidate, RequestView


class LeastPrefill:
    name = "least-prefill"

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        tokens = Candidates.of(candidates).loads[col.PREFILL]
        most = tokens.max()
        return np.ones(len(tokens)) if most == 0 else (most - tokens) / most
