"""One time per key, and which comes next. Pure."""

from __future__ import annotations

import heapq

from hekla.platform.api.meta import Ref

STALE_ENTRIES_MAX = 64
"""Replaced times that the heap may hold beyond as many as there are keys, before it is rebuilt."""


class Timers:
    """A heap with late deletion: the dict is the truth, the heap may still hold times that were replaced."""

    def __init__(self) -> None:
        self._at: dict[Ref, float] = {}
        self._heap: list[tuple[float, Ref]] = []

    def set(self, key: Ref, at_s: float) -> None:
        self._at[key] = at_s
        if len(self._heap) > 2 * len(self._at) + STALE_ENTRIES_MAX:
            self._heap = [(at, other) for other, at in self._at.items()]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (at_s, key))

    def set_earlier(self, key: Ref, at_s: float) -> None:
        """As `set`, unless an earlier time is set already."""
        if at_s < self._at.get(key, float("inf")):
            self.set(key, at_s)

    def drop(self, key: Ref) -> None:
        self._at.pop(key, None)

    def next_s(self) -> float | None:
        """The earliest time set."""
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now_s: float) -> list[tuple[float, Ref]]:
        """Take what is due, in order of time, then key."""
        due = []
        while (at := self.next_s()) is not None and at <= now_s:
            _, key = heapq.heappop(self._heap)
            del self._at[key]
            due.append((at, key))
        return due

    @property
    def entries(self) -> int:
        """What the heap holds, replaced times included."""
        return len(self._heap)

    def __contains__(self, key: object) -> bool:
        return key in self._at

    def __len__(self) -> int:
        return len(self._at)
