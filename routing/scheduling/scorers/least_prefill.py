"""Prefers the engine with the fewest prompt tokens still to prefill: a long prompt delays whoever comes after it."""

from __future__ import annotations

from collections.abc import Sequence

from hekla.routing.scheduling.interface import Candidate, RequestView


class LeastPrefill:
    name = "least-prefill"

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> list[float]:
        tokens = [c.load.prefill_tokens for c in candidates]
        most = max(tokens)
        return [1.0] * len(tokens) if most == 0 else [(most - n) / most for n in tokens]
