"""Which engine holds which adapter: least movement, within each engine's slots. Pure.

1. An adapter keeps the places it has.
2. Adapters that lack replicas get them, first the pinned and those with a minimum, then those that requests wait for
   (the longest waited for first, so that none starves), then by rate; on the host with the most free slots, equals by rendezvous hashing (so that every replica of this planner, and
   this planner after a restart, finds the same place).
3. Where there is no free slot, one is taken: first an adapter's surplus, then one that nobody asks for, then, for an
   adapter below its minimum, the one least asked for; for one that requests wait for and no host has, the same if it
   has had its place for `RESIDENCE_S`. Pinned adapters and those at their minimum are never taken. Loading costs seconds of requests that wait; this is the price
   that hysteresis puts on it.
4. Free slots that are left are filled with adapters that have no replica: the first request then need not wait.
   Surplus that nobody needs stays: unloading frees nothing that is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from hekla.deployments.lora.model import Adapter, Demand, Host, Placement

RESIDENCE_S = 10.0
"""An adapter has its place at least this long before another with waiting requests takes it: several loads' time, and
short beside a client's patience. With more adapters in demand than slots they take turns."""


def place(
    adapters: Sequence[Adapter], hosts: Sequence[Host], targets: Mapping[str, int], demand: Demand, now_s: float
) -> Placement:
    """By host: the adapters it is to hold."""
    desk = _Desk({adapter.name: adapter for adapter in adapters}, hosts, targets, demand, now_s)
    for adapter in sorted(adapters, key=desk.urgency):
        while desk.count(adapter.name) < targets.get(adapter.name, 0) and desk.give(adapter):
            pass
    for adapter in adapters:
        if not desk.count(adapter.name):
            desk.give_free(adapter)
    return {key: frozenset(names) for key, names in desk.held.items()}


def rendezvous(name: str, host: str) -> int:
    """Highest random weight: each adapter's own order of the hosts, which a host that comes or goes does not disturb."""
    return int.from_bytes(blake2b(f"{name}\0{host}".encode(), digest_size=8).digest(), "big")


@dataclass
class _Desk:
    """The plan as it grows."""

    adapters: Mapping[str, Adapter]
    hosts: Sequence[Host]
    targets: Mapping[str, int]
    demand: Demand
    now_s: float
    held: dict[str, set[str]] = field(init=False)

    def __post_init__(self) -> None:
        self._by_key = {host.key: host for host in self.hosts}
        self.held = {host.key: set(self._kept(host)) for host in self.hosts}

    def _kept(self, host: Host) -> list[str]:
        """What a host goes on holding: declared still, not failed there, within its slots."""
        names = [name for name in host.held if name in self.adapters and name not in host.failed]
        return sorted(names, key=lambda name: self.urgency(self.adapters[name]))[: host.slots]

    def urgency(self, adapter: Adapter) -> tuple[bool, float, float, str]:
        """Sorts the most urgent first."""
        name, demand = adapter.name, self.demand
        return (not adapter.replicas_min, demand.waiting.get(name, math.inf), -demand.rate(name), name)

    def count(self, name: str) -> int:
        return sum(name in names for names in self.held.values())

    def give_free(self, adapter: Adapter) -> bool:
        free = [host for host in self._open_to(adapter) if len(self.held[host.key]) < host.slots]
        if not free:
            return False
        best = max(free, key=lambda host: (host.slots - len(self.held[host.key]), rendezvous(adapter.name, host.key)))
        self.held[best.key].add(adapter.name)
        return True

    def give(self, adapter: Adapter) -> bool:
        """One more place for the adapter, free or taken; False when there is none."""
        if self.give_free(adapter):
            return True
        takings = [
            (self._regret(victim), -rendezvous(adapter.name, host.key), host.key, victim)
            for host in self._open_to(adapter)
            for victim in self.held[host.key]
            if self._may_take(adapter, victim, host)
        ]
        if not takings:
            return False
        _, _, key, victim = min(takings)
        self.held[key].remove(victim)
        self.held[key].add(adapter.name)
        return True

    def _open_to(self, adapter: Adapter) -> Iterator[Host]:
        name = adapter.name
        return (h for h in self.hosts if h.slots > 0 and name not in self.held[h.key] and name not in h.failed)

    def _regret(self, victim: str) -> tuple[bool, float]:
        """Surplus is taken before anything's last place; then the least asked for."""
        count = self.count(victim)
        return (count <= self.targets.get(victim, 0), self.demand.rate(victim) / max(1, count))

    def _may_take(self, adapter: Adapter, victim: str, host: Host) -> bool:
        loser, count = self.adapters[victim], self.count(victim)
        if loser.pinned or count <= loser.replicas_min:
            return False
        if count > self.targets.get(victim, 0) or not self.demand.is_asked(victim):
            return True
        since_s = self._by_key[host.key].held.get(victim)
        if since_s is None:
            return False  # this very plan has put it there
        own = self.count(adapter.name)
        if own < adapter.replicas_min:
            return True
        return not own and adapter.name in self.demand.waiting and self.now_s - since_s >= RESIDENCE_S
