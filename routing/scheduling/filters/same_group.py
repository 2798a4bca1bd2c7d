"""Keeps engines of the ServingGroup that a request is bound to: KV cache moves only inside one.

Who binds it (the choice of the other half of a prefill/decode pair) writes the group into the request's memo.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hekla.routing.scheduling.candidates import Candidates, Mask, Pool
from hekla.routing.scheduling.interface import Candidate, RequestView

MEMO = "serving-group"
"""`request.memo[MEMO] = (label, value)`."""


class SameGroup:
    name = "same-group"

    def keep(self, request: RequestView, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        bound: tuple[str, str] | None = request.memo.get(MEMO)
        if bound is None:
            return candidates
        among = Candidates.of(candidates)
        return among.where(_members(among.pool, *bound)[among.positions])


def _members(pool: Pool, label: str, value: str) -> Mask:
    def look(pool: Pool) -> Mask:
        return np.array([c.backend.labels.get(label) == value for c in pool.candidates], dtype=np.bool_)

    return pool.keep(("group", label, value), look)
