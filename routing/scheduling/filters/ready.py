"""Leaves out engines that lately refused a connection, unless that would leave none.

The table tells within a health period that an engine is gone; this bridges the seconds until then.
"""

from __future__ import annotations

from collections.abc import Sequence

from hekla.routing.scheduling.interface import Candidate, RequestView


class Ready:
    name = "ready"

    def keep(self, request: RequestView, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        now_s = request.now_s
        trusted = [c for c in candidates if c.load.suspect_until_s <= now_s]
        return trusted or candidates
