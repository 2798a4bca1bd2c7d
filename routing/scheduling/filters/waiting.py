"""Leaves out engines that report a full waiting queue; an engine that reports nothing stays."""

from __future__ import annotations

from collections.abc import Sequence

from hekla.routing.scheduling.interface import Candidate, RequestView


class Waiting:
    name = "waiting"

    def __init__(self, waiting_max: int) -> None:
        self._waiting_max = waiting_max

    def keep(self, request: RequestView, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        return [c for c in candidates if (c.load.engine_waiting or 0) < self._waiting_max]
