"""Leaves out engines that hold as many requests as they may, all ingress replicas together."""

from __future__ import annotations

from collections.abc import Sequence

from hekla.routing import load_columns as col
from hekla.routing.scheduling.candidates import Candidates
from hekla.routing.scheduling.interface import Candidate, RequestView


class Capacity:
    name = "capacity"

    def __init__(self, requests_max: int) -> None:
        self._requests_max = requests_max

    def keep(self, request: RequestView, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        among = Candidates.of(candidates)
        if len(among) == 1 and among[0].load.requests < self._requests_max:
            return among
        return among.where(among.loads[col.REQUESTS] < self._requests_max)
