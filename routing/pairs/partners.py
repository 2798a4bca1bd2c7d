"""Which prefill engines may hand over to which decode engines. Made once per routing table; pure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from hekla.routing.backend import Backend, PrefillGroup
from hekla.routing.load_columns import Rows, Vector
from hekla.routing.scheduling.candidates import Mask

REVISION_LABELS = ("modelserving.volcano.sh/revision", "workload.serving.volcano.sh/revision")
NONE = -1


class Partners:
    """Engines of all groups side by side; a partner is of the same group, of the same revision if there is one."""

    def __init__(self, groups: Iterable[PrefillGroup], *, may_be_local: bool) -> None:
        """`may_be_local`: whether the connector leaves decode engines able to compute prompts."""
        prefill, decode, same, any_ = list[Backend](), list[Backend](), list[int](), list[int]()
        self._parts: list[Rows] = []
        for group in groups:
            rows = range(len(prefill), len(prefill) + len(group.prefill))
            prefill.extend(group.prefill)
            everyone, by_revision = self._part(list(rows)), dict[str, int]()
            for backend in group.decode:
                revision = revision_of(backend)
                if revision not in by_revision:
                    alike = [row for row in rows if revision_of(prefill[row]) == revision]
                    by_revision[revision] = everyone if len(alike) == len(rows) else self._part(alike)
                decode.append(backend)
                same.append(by_revision[revision])
                any_.append(everyone)
        self.prefill, self.decode = tuple(prefill), tuple(decode)
        self._same, self._any = np.array(same, dtype=np.int64), np.array(any_, dtype=np.int64)
        self.can_be_local: Mask = np.array([may_be_local and not b.is_decode_only for b in decode], dtype=np.bool_)

    def _part(self, rows: list[int]) -> int:
        self._parts.append(np.array(rows, dtype=np.int64))
        return len(self._parts) - 1

    def best(self, costs: Vector) -> Rows:
        """For each decode engine the prefill engine of least cost (its position), or NONE; infinite costs are out."""
        best = np.array([_least(costs, part) for part in self._parts], dtype=np.int64)
        alike = best[self._same]
        found: Rows = np.where(alike != NONE, alike, best[self._any])
        return found

    def fetches_from(self, prefill: str) -> Mask:
        """Which decode engines can fetch from the prefill engine with this key."""
        rows = [row for row, backend in enumerate(self.prefill) if backend.key == prefill]
        parts = [bool(np.isin(rows, part).any()) for part in self._parts]
        found: Mask = np.array(parts, dtype=np.bool_)[self._any]
        return found

    def may_pair(self, decode: int) -> Mask:
        """Which prefill engines may hand over to the decode engine at this position."""
        mask = np.zeros(len(self.prefill), dtype=np.bool_)
        alike = self._parts[self._same[decode]]
        mask[alike if len(alike) else self._parts[self._any[decode]]] = True
        return mask


def _least(costs: Vector, part: Rows) -> int:
    if not len(part):
        return NONE
    at = int(part[np.argmin(costs[part])])
    return at if np.isfinite(costs[at]) else NONE


def revision_of(backend: Backend) -> str:
    return next((backend.labels[label] for label in REVISION_LABELS if label in backend.labels), "")
