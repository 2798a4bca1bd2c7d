"""Leaves out engines that report a long waiting queue, unless that would leave none; silence counts as no queue.

An engine queues by itself, and better than a client that was refused: overload is an error only where `capacity` is
exceeded. (The reference answers 400 as soon as every engine has ten requests waiting: its defect 3.)
"""

from __future__ import annotations

from collections.abc import Sequence

from hekla.routing.scheduling.interface import Candidate, RequestView


class Waiting:
    name = "waiting"

    def __init__(self, waiting_max: int) -> None:
        self._waiting_max = waiting_max

    def keep(self, request: RequestView, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        unhurried = [c for c in candidates if (c.load.engine_waiting or 0) < self._waiting_max]
        return unhurried or candidates
