"""A score by lot: the plugin `random`."""

from __future__ import annotations

from collections.abc import Sequence

from hekla.routing.scheduling.interface import Candidate, RequestView


class Uniform:
    name = "random"

    def score(self, request: RequestView, candidates: Sequence[Candidate]) -> list[float]:
        return [request.random for _ in range(len(candidates))]
