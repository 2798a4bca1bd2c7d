"""The admission queue of one model: bounded, fair, work-conserving. Pure: no clock, no asyncio; times are arguments.

offer(item)   → it waits, or Rejected
next(choose)  → [Admitted | Expired]: call it when something waits and the engines' state has changed, or at
                `next_wake_s`; `commit` is told of each admission before the next is decided, to count its load
settle(id)    → the request has ended: what it really cost replaces what was estimated
withdraw(id)  → its client left
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hekla.routing.admission.band import Band
from hekla.routing.admission.drain import DrainRate
from hekla.routing.admission.flow import Entry, Flow
from hekla.routing.admission.interface import (
    Admitted,
    Choice,
    Choose,
    Expired,
    Locality,
    Outcome,
    Reason,
    Rejected,
    Spent,
    Waiting,
)
from hekla.routing.admission.sessions import Sessions
from hekla.routing.admission.settings import AdmissionSettings

MEAN_WEIGHT = 0.05
"""How much of a new request's cost goes into the running mean: the mean of about the last 20."""


EXPLAINED_MAX = 100
"""Tenants of a class told of."""


@dataclass(slots=True)
class _Flight:
    flow: Flow
    session: str
    charged: float


@dataclass(slots=True)
class _Round:
    """One call of `next`."""

    now_s: float
    choose: Choose
    locality: Locality | None
    commit: Callable[[Admitted], None] | None
    tried: dict[Flow, int] = field(default_factory=dict)
    """Refusals by flow."""
    refused: dict[Entry, str | None] = field(default_factory=dict)
    """And the engine each of them waits for."""
    cached: dict[Entry, int] = field(default_factory=dict)
    """What `locality` said."""
    keepers: dict[str, int] = field(default_factory=dict)
    """Engines that a request waits for, and its class: no lower class gets them."""
    kept: set[str] = field(default_factory=set)
    """Engines kept free for a request that has been overtaken often enough."""


class AdmissionCore:
    def __init__(
        self, settings: AdmissionSettings, *, engines: int = 0,
        on_service: Callable[[str, int, float], None] = lambda tenant, priority, cost: None,
    ) -> None:  # fmt: skip
        """`on_service` is told what each ended request has cost: tenant, class, cost. Other replicas add it to theirs."""
        self.settings, self._on_service = settings, on_service
        self.engines = engines
        """Ready engines of the model, for `per_engine_max`; the caller keeps it current."""
        self._bands: dict[int, Band] = {}
        self._entries: dict[str, Entry] = {}
        self._flights: dict[str, _Flight] = {}
        self._displaced: list[Entry] = []
        self._due: list[tuple[float, int, str]] = []
        self._order = itertools.count()
        self._sessions = Sessions(settings.boost)
        self._drain = DrainRate()
        self._mean_cost = 0.0
        self.bytes = 0
        """Held by what waits."""

    def use(self, settings: AdmissionSettings) -> None:
        """Other settings from now on; what waits keeps its place and its timeout."""
        self.settings = settings
        self._sessions.use(settings.boost)
        for band in self._bands.values():
            band.use(settings)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing is in flight."""
        return not self._entries and not self._flights and not self._displaced

    @property
    def next_wake_s(self) -> float | None:
        """When `next` has something to do even if nothing else happens; None: not before something does."""
        while self._due and self._due[0][2] not in self._entries:
            heapq.heappop(self._due)
        times = [self._due[0][0]] if self._due else []
        if self._displaced:
            times.append(0.0)
        if self._entries and (end_s := self._sessions.next_end_s) is not None:
            times.append(end_s)
        return min(times, default=None)

    def enter(self, item: Waiting, now_s: float, choose: Choose) -> Admitted | Rejected | None:
        """The fast path of `offer` and `next`: admitted at once when nothing waits and it fits; None: it waits."""
        if not self._entries and self._slots(now_s, item.session):
            choice = choose(item)
            if choice is not None and choice.fits:
                band = self._band(item.priority)
                flow = band.flow(item.tenant, item.weight)
                band.join(flow)
                band.leave(flow)
                return self._start(item, flow, choice, now_s)
        return self.offer(item, now_s)

    def offer(self, item: Waiting, now_s: float) -> Rejected | None:
        """Let it wait; `next` decides when it goes. Ids must be unique among what waits and is in flight."""
        assert item.id not in self._entries and item.id not in self._flights, f"{item.id!r} was offered twice"
        self._drain.pass_time(now_s, is_backlogged=bool(self._entries))
        band = self._band(item.priority)
        flow = band.flow(item.tenant, item.weight)
        if len(flow) >= self.settings.tenant_queue_max:
            return Rejected(Reason.TENANT_QUEUE_FULL, self._retry_after_s(band, flow))
        victim = None
        if self._is_full(item):
            victim = self._victim(item, band, flow)
            if victim is None or self._is_full(item, without=victim):
                return Rejected(Reason.QUEUE_FULL, self._retry_after_s(band, flow))
            self._remove(victim)
            self._displaced.append(victim)
        self._insert(item, band, flow)
        return None

    def next(
        self, now_s: float, choose: Choose, *, locality: Locality | None = None,
        commit: Callable[[Admitted], None] | None = None,
    ) -> list[Outcome]:  # fmt: skip
        """Everything that can go now, and what has waited too long."""
        self._drain.pass_time(now_s, is_backlogged=bool(self._entries))
        outcomes = self._expire(now_s)
        turn = _Round(now_s, choose, locality, commit)
        while self._entries and len(turn.refused) < self.settings.tries_max:
            entry = self._pick(turn)
            if entry is None:
                break
            choice = choose(entry.item)
            if choice is None or not self._may_have(entry, choice, turn):
                turn.refused[entry] = None if choice is None else choice.engine
                turn.tried[entry.flow] = turn.tried.get(entry.flow, 0) + 1
                continue
            outcomes.append(self._admit(entry, choice, turn))
        return outcomes

    def withdraw(self, id_: str) -> bool:
        """Its client left; False when it did not wait."""
        entry = self._entries.get(id_)
        if entry is not None:
            self._remove(entry)
        return entry is not None

    def settle(self, id_: str, spent: Spent | None, now_s: float) -> None:
        """An admitted request has ended. None: its usage is not known, the estimate stays. Unknown ids are ignored."""
        flight = self._flights.pop(id_, None)
        if flight is None:
            return
        flight.flow.in_flight -= 1
        cost = flight.charged
        if spent is not None:
            cost = self.settings.cost(spent.uncached_tokens, spent.output_tokens)
            flight.flow.charge(cost - flight.charged)
        self._on_service(flight.flow.tenant, flight.flow.priority, cost)
        if spent is None or spent.output_tokens:
            self._sessions.complete(flight.session, now_s)

    def served_elsewhere(self, tenant: str, priority: int, cost: float) -> None:
        """Another replica has served the tenant: its counter here grows as well."""
        flow = self._known(tenant, priority)
        if flow is not None:
            flow.charge(cost)

    def service(self, tenant: str, priority: int) -> float:
        """The tenant's virtual counter; 0 while it is not known."""
        flow = self._known(tenant, priority)
        return 0.0 if flow is None else flow.counter

    def _known(self, tenant: str, priority: int) -> Flow | None:
        band = self._bands.get(priority)
        return None if band is None else band.flows.get(tenant)

    def _band(self, priority: int) -> Band:
        band = self._bands.get(priority)
        if band is None:
            self._bands[priority] = band = Band(priority, self.settings)
            self._bands = dict(sorted(self._bands.items(), reverse=True))
        return band

    def _insert(self, item: Waiting, band: Band, flow: Flow) -> None:
        timeout_s = item.arrived_s + self.settings.timeout_s
        due_s = timeout_s if item.deadline_s is None else min(item.deadline_s, timeout_s)
        cost = self.settings.cost(item.uncached_tokens, item.output_tokens)
        entry = Entry(item, flow, due_s=due_s, order=next(self._order), cost=cost)
        band.join(flow)
        flow.add(entry)
        self._entries[item.id] = entry
        self.bytes += item.size_bytes
        if len(self._due) > 2 * len(self._entries) + self.settings.queue_max:
            self._due = [due for due in self._due if due[2] in self._entries]
            heapq.heapify(self._due)
        heapq.heappush(self._due, (due_s, entry.key[1], item.id))

    def _remove(self, entry: Entry) -> None:
        flow = entry.flow
        flow.remove(entry)
        if not len(flow):
            self._bands[flow.priority].leave(flow)
        del self._entries[entry.item.id]
        self.bytes -= entry.item.size_bytes

    def _expire(self, now_s: float) -> list[Outcome]:
        gone: list[Outcome] = [self._expired(entry, Reason.DISPLACED) for entry in self._displaced]
        self._displaced.clear()
        while self._due and self._due[0][0] <= now_s:
            entry = self._entries.get(heapq.heappop(self._due)[2])
            if entry is not None:
                self._remove(entry)
                is_deadline = entry.item.deadline_s is not None and entry.item.deadline_s <= now_s
                gone.append(self._expired(entry, Reason.DEADLINE if is_deadline else Reason.TIMEOUT))
        return gone

    def _expired(self, entry: Entry, reason: Reason) -> Expired:
        band = self._bands[entry.flow.priority]
        return Expired(entry.item, reason, self._retry_after_s(band, entry.flow))

    def _pick(self, turn: _Round) -> Entry | None:
        """The next to ask the scheduler about: highest class, then as the class decides."""
        quantum = self.settings.quantum_requests * self._mean_cost
        is_deep = turn.locality is not None or self._sessions.are_any
        for band in self._bands.values():
            if band.is_empty:
                continue
            heads = band.candidates(turn.tried, turn.refused, quantum, is_deep=is_deep)
            free = [entry for entry in heads if self._slots(turn.now_s, entry.item.session)]
            if free:
                return min(free, key=lambda entry: self._rank(entry, turn))
        return None

    def _rank(self, entry: Entry, turn: _Round) -> tuple[float, ...]:
        """Smallest first: follow-ups of the session completed last, then the longest cached prefix, then fairness."""
        cached = 0
        if turn.locality is not None:
            if entry not in turn.cached:
                turn.cached[entry] = turn.locality(entry.item)
            cached = turn.cached[entry]
        return (-self._sessions.recency(entry.item.session), -cached, entry.flow.counter, *entry.key)

    def _may_have(self, entry: Entry, choice: Choice, turn: _Round) -> bool:
        """Whether the engine fits and is not kept free: for a higher class, or for one that was overtaken too often."""
        if choice.engine in turn.kept:
            return False
        keeper = turn.keepers.get(choice.engine)
        if keeper is not None and keeper > entry.item.priority:
            return False
        if not choice.fits:
            turn.keepers.setdefault(choice.engine, entry.item.priority)
            self._keep(entry, choice.engine, turn)
        return choice.fits

    def _keep(self, entry: Entry, engine: str | None, turn: _Round) -> None:
        if engine is not None and entry.passed >= self.settings.bypass_max:
            turn.kept.add(engine)

    def _admit(self, entry: Entry, choice: Choice, turn: _Round) -> Admitted:
        for passed in {*turn.refused, next(iter(entry.flow.heads(1)))} - {entry}:
            passed.passed += 1
            self._keep(passed, turn.refused.get(passed), turn)
        self._remove(entry)
        admitted = self._start(entry.item, entry.flow, choice, turn.now_s)
        self._drain.admit(self._flights[entry.item.id].charged)
        if turn.commit is not None:
            turn.commit(admitted)
        return admitted

    def _start(self, item: Waiting, flow: Flow, choice: Choice, now_s: float) -> Admitted:
        uncached = item.uncached_tokens if choice.uncached_tokens is None else choice.uncached_tokens
        cost = self.settings.cost(uncached, item.output_tokens)
        self._mean_cost += (cost - self._mean_cost) * (MEAN_WEIGHT if self._mean_cost else 1.0)
        flow.charge(cost)
        flow.in_flight += 1
        self._flights[item.id] = _Flight(flow, item.session, cost)
        self._sessions.start(item.session)
        return Admitted(item, choice, now_s - item.arrived_s)

    def _slots(self, now_s: float, session: str) -> bool:
        """Whether the concurrency limits leave a slot for a request of this session."""
        settings, limits = self.settings, []
        if settings.concurrent_max:
            limits.append(settings.concurrent_max)
        if settings.per_engine_max:
            limits.append(settings.per_engine_max * self.engines)
        if not limits:
            return True
        held = self._sessions.held(now_s) - self._sessions.is_held(session)
        return len(self._flights) + held < min(limits)

    def _is_full(self, item: Waiting, without: Entry | None = None) -> bool:
        freed = 0 if without is None else 1
        held_bytes = self.bytes - (0 if without is None else without.item.size_bytes)
        settings = self.settings
        return (
            len(self._entries) - freed >= settings.queue_max or held_bytes + item.size_bytes > settings.queue_bytes_max
        )

    def _victim(self, item: Waiting, own: Band, flow: Flow) -> Entry | None:
        """Whose last request gives way: of a lower class, else of the tenant of this class with the most waiting."""
        for band in reversed(self._bands.values()):
            if not band.is_empty and band.priority <= item.priority:
                longest = max(band.waiting, key=lambda f: len(f) / f.weight)
                is_lower = band is not own
                if is_lower or len(longest) / longest.weight > (len(flow) + 1) / flow.weight:
                    return longest.last
        return None

    def _retry_after_s(self, band: Band, flow: Flow) -> int:
        """What goes before a request that this tenant would send now, at the rate of late."""
        ahead = sum(other.backlog for other in self._bands.values() if other.priority > band.priority)
        shares = sum(other.weight for other in band.waiting) or flow.weight
        ahead += min(band.backlog, flow.backlog * shares / flow.weight)
        seconds = self._drain.seconds_for(ahead)
        return max(1, min(self.settings.retry_after_max_s, math.ceil(seconds or 0)))

    def explain(self) -> dict[str, Any]:
        """What waits and who was served how much; the tenants that wait, and some of the others."""
        tenants = [
            {"tenant": flow.tenant, "priority": band.priority, "waiting": len(flow), "service": flow.counter}
            for band in self._bands.values()
            for flow in sorted(band.flows.values(), key=lambda flow: -len(flow))[:EXPLAINED_MAX]
        ]
        return {"waiting": len(self), "in_flight": self.in_flight, "bytes": self.bytes, "tenants": tenants}

    def check(self) -> None:
        """Invariants: counts, bytes and flows tell the same."""
        flows = [flow for band in self._bands.values() for flow in band.waiting]
        assert sum(map(len, flows)) == len(self._entries)
        assert self.bytes == sum(entry.item.size_bytes for entry in self._entries.values()) >= 0
        assert all(len(flow) for flow in flows), "a tenant without a waiting request is among those who wait"
        assert len(self._entries) <= self.settings.queue_max and self.bytes <= self.settings.queue_bytes_max
        remembered = [flow for band in self._bands.values() for flow in band.flows.values()]
        assert sum(flow.in_flight for flow in remembered) == len(self._flights)

    def __repr__(self) -> str:
        return f"AdmissionCore(waiting={len(self)}, in_flight={self.in_flight}, bytes={self.bytes})"
