"""One priority class: fair among tenants, local within a quantum, earliest deadline first within a tenant. Pure.

Virtual token counters (Sheng et al., *Fairness in Serving Large Language Models*, OSDI 2024, arXiv 2401.00588): each
tenant's counter grows by the weighted tokens it is served, over its weight; the smallest counter goes first. A tenant
that comes back to the queue has its counter lifted to the smallest of those who wait, so that idleness saves up nothing.

Locality (after DLPM, Cao et al., arXiv 2501.14312): every tenant whose counter is within a quantum Q of the smallest may
go, and of their first requests the one whose prefix is cached best does. DLPM refills deficits of Q by rounds; a window
of Q over the counters bounds the same thing and needs no rounds.

So with U the largest cost of a request, counters of two tenants that both wait differ by at most Q + U / weight at any
time, and their weighted service over any interval by at most twice that, plus what estimates of requests in flight were
wrong by (`Spent` corrects them when a request ends).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from hekla.routing.admission.flow import Entry, Flow
from hekla.routing.admission.settings import AdmissionSettings


class Band:
    def __init__(self, priority: int, settings: AdmissionSettings) -> None:
        self.priority, self._settings = priority, settings
        self.flows: dict[str, Flow] = {}
        """Every tenant remembered, those without anything waiting included."""
        self._waiting: dict[str, Flow] = {}
        self._last_left = 0.0
        """Counter of the tenant that was the last to have nothing waiting any more."""

    def use(self, settings: AdmissionSettings) -> None:
        self._settings = settings

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    @property
    def waiting(self) -> Collection[Flow]:
        return self._waiting.values()

    @property
    def backlog(self) -> float:
        return sum(flow.backlog for flow in self._waiting.values())

    def flow(self, tenant: str, weight: float) -> Flow:
        found = self.flows.get(tenant)
        if found is None:
            if len(self.flows) >= self._settings.tenants_max:
                self._forget()
            found = self.flows[tenant] = Flow(tenant, self.priority)
        found.weight = weight
        return found

    def join(self, flow: Flow) -> None:
        """The tenant has something waiting again: lift its counter."""
        if flow.tenant not in self._waiting:
            floor = self._last_left if not self._waiting else min(f.counter for f in self._waiting.values())
            flow.counter = max(flow.counter, floor)
            self._waiting[flow.tenant] = flow

    def leave(self, flow: Flow) -> None:
        """Nothing of the tenant waits any more."""
        self._waiting.pop(flow.tenant, None)
        self._last_left = flow.counter

    def candidates(
        self, tried: Mapping[Flow, int], skipped: Collection[Entry], quantum: float, *, is_deep: bool
    ) -> Iterator[Entry]:
        """The heads that may go next: of tenants within the quantum, those tried least often in this round first.

        `is_deep`: more than one of each tenant, for what may tell them apart.
        """
        flows = [flow for flow in self._waiting.values() if tried.get(flow, 0) < len(flow)]
        if not flows:
            return
        fewest = min(tried.get(flow, 0) for flow in flows)
        flows = [flow for flow in flows if tried.get(flow, 0) == fewest]
        floor = min(flow.counter for flow in flows)
        near = sorted((flow for flow in flows if flow.counter <= floor + quantum), key=lambda flow: flow.counter)
        each = max(1, self._settings.scan_max // len(near)) if is_deep else 1
        for flow in near[: self._settings.scan_max]:
            yield from self._heads(flow, skipped, each + fewest)

    def _heads(self, flow: Flow, skipped: Collection[Entry], count: int) -> Iterator[Entry]:
        """Its first requests; only the first when that one names a deadline or has been passed often enough."""
        is_first = True
        for entry in flow.heads(count):
            if entry in skipped:
                continue
            if not is_first and entry.item.deadline_s is not None:
                return
            yield entry
            if entry.item.deadline_s is not None or entry.passed >= self._settings.bypass_max:
                return
            is_first = False

    def _forget(self) -> None:
        """Drop the idle tenant with the smallest counter: a lift would give it back nearly all of that anyway."""
        idle = [f for f in self.flows.values() if not f.in_flight and f.tenant not in self._waiting]
        if idle:
            del self.flows[min(idle, key=lambda flow: flow.counter).tenant]
