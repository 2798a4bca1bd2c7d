"""Leaves out engines whose circuit is open: they failed too often lately. Unless that would leave none.

Who is ejected, for how long and how many at most is decided where outcomes are seen (`EngineLoad.ejected`). With all of
them ejected the fault is likely not theirs, and a try is worth more than a refusal.
"""

from __future__ import annotations

from collections.abc import Sequence

from hekla.routing import load_columns as col
from hekla.routing.scheduling.candidates import Candidates
from hekla.routing.scheduling.interface import Candidate, RequestView


class Circuit:
    name = "circuit"
    spares_last = True

    def keep(self, request: RequestView, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        among = Candidates.of(candidates)
        return among.where(among.loads[col.EJECTED] == 0) or among
