"""Prefers the engine that holds most of the prompt's beginning: matched tokens over the prompt's.

Two plugins of one class: `prefix-cache` asks the approximate index (what was sent where), `kv-cache` the exact one (what
the engines say they hold; old name `kvcache-aware`). With `top_k` only so many of the best score, equals by lot.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.candidates import Candidates
from hekla.routing.scheduling.interface import Candidate, PrefixKnowledge, RequestView
from hekla.routing.scheduling.knowledge import matched, prompt_tokens


class Prefix:
    def __init__(self, name: str, knowledge: PrefixKnowledge, *, top_k: int = 0) -> None:
        self.name, self._knowledge, self._top_k = name, knowledge, top_k

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        scores = matched(request, Candidates.of(candidates), self._knowledge) / prompt_tokens(request)
        if not self._top_k or np.count_nonzero(scores) <= self._top_k:
            return scores
        # Turned round by lot before a stable sort: which of equals come first differs from request to request.
        turned = np.roll(np.arange(len(scores)), int(request.random * len(scores)))
        best = turned[np.argsort(-scores[turned], kind="stable")[: self._top_k]]
        kept = np.zeros(len(scores))
        kept[best] = scores[best]
        return kept
