"""The waiting requests of one tenant in one class, earliest deadline first, with its virtual counter. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from itertools import islice

from hekla.routing.admission.interface import Waiting


class Entry:
    """A waiting request's place in its flow."""

    __slots__ = ("cost", "due_s", "flow", "item", "key", "passed")

    def __init__(self, item: Waiting, flow: Flow, *, due_s: float, order: int, cost: float) -> None:
        self.item, self.flow, self.due_s, self.cost = item, flow, due_s, cost
        self.key = (due_s, order)
        """Requests without a deadline are due when the queue's timeout ends: so they are first come, first served,
        and none is overtaken for ever by others that name deadlines."""
        self.passed = 0
        """How often another went in its place."""


class Flow:
    __slots__ = ("_entries", "backlog", "counter", "in_flight", "priority", "tenant", "weight")

    def __init__(self, tenant: str, priority: int) -> None:
        self.tenant, self.priority, self.weight = tenant, priority, 1.0
        self.counter = 0.0
        """Service so far over the weight, lifted when the tenant comes back: VTC's virtual token counter."""
        self.in_flight = 0
        self.backlog = 0.0
        """Cost of what waits."""
        self._entries: list[tuple[tuple[float, int], Entry]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        insort(self._entries, (entry.key, entry))
        self.backlog += entry.cost

    def remove(self, entry: Entry) -> None:
        at = bisect_left(self._entries, (entry.key,))
        assert self._entries[at][1] is entry, f"{entry.item.id} is not in its flow"
        del self._entries[at]
        self.backlog = self.backlog - entry.cost if self._entries else 0.0

    @property
    def last(self) -> Entry:
        return self._entries[-1][1]

    def heads(self, count: int) -> Iterator[Entry]:
        """The first `count` entries, in order."""
        return (entry for _, entry in islice(self._entries, count))

    def charge(self, cost: float) -> None:
        self.counter += cost / self.weight

    def __repr__(self) -> str:
        return f"Flow({self.tenant!r}, waiting={len(self)}, in_flight={self.in_flight}, counter={self.counter:.0f})"
