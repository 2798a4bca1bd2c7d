"""Asking for matched tokens once per decision, however many plugins want them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.candidates import Candidates
from hekla.routing.scheduling.interface import Candidate, PrefixKnowledge, RequestView


class NoKnowledge:
    """A `PrefixKnowledge` that knows nothing: every prompt is new everywhere."""

    def matched_tokens(self, request: RequestView, candidates: Sequence[Candidate]) -> Sequence[int]:
        return [0] * len(candidates)

    def routed(self, request: RequestView, engine: str, now_s: float) -> None: ...

    def finished(self, request: RequestView, engine: str, now_s: float, *, succeeded: bool) -> None: ...

    def forget(self, engine: str) -> None: ...


def prompt_tokens(request: RequestView) -> int:
    """Exact when the router has tokenised the prompt, else estimated; at least 1."""
    return max(len(request.token_ids) if request.token_ids is not None else request.estimated_tokens, 1)


def matched(request: RequestView, candidates: Candidates, knowledge: PrefixKnowledge) -> Vector:
    """Tokens at the prompt's start that each candidate holds, kept in the request's memo for this decision."""
    key = f"matched.{id(knowledge):x}"
    known: tuple[Candidates, Vector, float] | None = request.memo.get(key)
    if known is not None and known[0].pool is candidates.pool and known[2] == request.now_s:
        before, values, _ = known
        if before is candidates:
            return values
        if len(candidates) <= len(before):
            at = np.minimum(np.searchsorted(before.positions, candidates.positions), len(before) - 1)
            if np.array_equal(before.positions[at], candidates.positions):
                among: Vector = values[at]
                return among
    values = np.asarray(knowledge.matched_tokens(request, candidates), dtype=np.float64)
    values = np.minimum(values, prompt_tokens(request))
    request.memo[key] = (candidates, values, request.now_s)
    return values
