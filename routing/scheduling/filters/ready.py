"""Leaves out engines that lately refused a connection, unless that would leave none.

The table tells within a health period that an engine is gone; this bridges the seconds until then.
"""

from __future__ import annotations

from collections.abc import Sequence

from hekla.routing import load_columns as col
from hekla.routing.scheduling.candidates import Candidates
from hekla.routing.scheduling.interface import Candidate, RequestView


class Ready:
    name = "ready"
    spares_last = True

    def keep(self, request: RequestView, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        among = Candidates.of(candidates)
        return among.where(among.loads[col.SUSPECT_UNTIL_S] <= request.now_s) or among
