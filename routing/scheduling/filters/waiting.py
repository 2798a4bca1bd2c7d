"""Leaves out engines that report a long waiting queue, unless that would leave none; silence counts as no queue.

An engine queues by itself, and better than a client that was refused: overload is an error only where `capacity` is
exceeded. (The reference answers 400 as soon as every engine has ten requests waiting: its defect 3.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hekla.routing import load_columns as col
from hekla.routing.scheduling.candidates import Candidates
from hekla.routing.scheduling.interface import Candidate, RequestView


class Waiting:
    name = "waiting"

    def __init__(self, waiting_max: int) -> None:
        self._waiting_max = waiting_max

    def keep(self, request: RequestView, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        among = Candidates.of(candidates)
        # A comparison with an unknown number (NaN) is false: such an engine is not known to hold anyone back.
        return among.where(np.logical_not(among.loads[col.WAITING] >= self._waiting_max)) or among
