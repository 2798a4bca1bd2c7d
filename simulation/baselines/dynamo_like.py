"""Dynamo's default: prefill blocks still to compute plus blocks that decode, added up; the least wins."""

from __future__ import annotations

from collections.abc import Sequence

from hekla.routing import load_columns as col
from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.interface import Candidate, PrefixKnowledge, RequestView
from hekla.simulation.baselines.rules import as_candidates, lowest, match_of


class DynamoLike:
    """Active blocks are counted once for a prefix that several requests share, as with `assume_kv_reuse`."""

    name = "dynamo-like"

    def __init__(self, knowledge: PrefixKnowledge, *, overlap_weight: float = 1.0) -> None:
        self._knowledge, self._overlap_weight = knowledge, overlap_weight

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> Vector:
        chosen = as_candidates(candidates)
        match = match_of(request, chosen, self._knowledge)
        prefill = chosen.loads[col.PREFILL] + match.total - self._overlap_weight * match.tokens
        decode = chosen.loads[col.KV] + match.total - match.tokens
        return lowest(prefill.clip(min=0.0) + decode)
