"""Admission before a simulated router: the production queue, in virtual time.

An engine that has a new first token or a finished answer may take what it could not take before, so the queue is looked
at after each, once per instant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hekla.routing.admission.core import AdmissionCore
from hekla.routing.admission.interface import Admitted, Choice, Rejected, Spent, Waiting
from hekla.routing.admission.objective import is_kept, objective_for
from hekla.routing.admission.settings import AdmissionSettings
from hekla.routing.disaggregation import AllTried, NothingReady, Plan
from hekla.routing.scheduling.interface import Busy
from hekla.simulation.flight import Flight
from hekla.simulation.loop import Event, EventLoop

LOOK_AGAIN_S = 0.001
"""Least time between two looks that nothing but time has caused."""


@dataclass(frozen=True)
class Admission:
    """How a fleet admits. `settings` without objectives and limits admit everything."""

    settings: AdmissionSettings
    deadline_s: float = 0.0
    """Counted from arrival: later, nobody waits for the answer any more. 0: only the queue's timeout holds."""
    weights: tuple[tuple[str, float], ...] = ()
    output_tokens: int = 200
    """Estimate of an answer's length until the first have ended."""


class Gate:
    """`start` sends a request to the plan's engine, `refuse` ends it unserved."""

    def __init__(
        self, admission: Admission, loop: EventLoop, engines: int, *,
        start: Callable[[Flight, Plan], None], refuse: Callable[[Flight], None],
    ) -> None:  # fmt: skip
        self.core = AdmissionCore(admission.settings, engines=engines)
        self._admission, self._loop = admission, loop
        self._start, self._refuse = start, refuse
        self._weights = dict(admission.weights)
        self._output_tokens = float(admission.output_tokens)
        self._look: Event | None = None
        self._look_at_s = 0.0

    def offer(self, flight: Flight) -> None:
        now, request = self._loop.monotonic(), flight.request
        deadline = self._admission.deadline_s
        item = Waiting(
            id=str(request.id), arrived_s=now, tenant=request.tenant, weight=self._weights.get(request.tenant, 1.0),
            session=request.session, deadline_s=now + deadline if deadline else None,
            uncached_tokens=request.prompt_tokens, output_tokens=round(self._output_tokens), payload=flight,
        )  # fmt: skip
        outcome = self.core.enter(item, now, self._choose)
        if isinstance(outcome, Admitted):
            self._go(outcome)
        elif isinstance(outcome, Rejected):
            self._refuse(flight)
        else:
            self.nudge()

    def nudge(self) -> None:
        """Something has changed at the engines, or something has come to wait."""
        if len(self.core):
            self._look_by(self._loop.monotonic())

    def _look_by(self, time_s: float) -> None:
        if self._look is not None:
            if self._look_at_s <= time_s:
                return
            self._look.cancel()
        self._look, self._look_at_s = self._loop.at(time_s, self._pump), time_s

    def settle(self, flight: Flight) -> None:
        record = flight.record
        self._output_tokens += (record.output_tokens - self._output_tokens) * 0.02
        spent = Spent(record.prompt_tokens - record.cached_tokens, record.output_tokens)
        self.core.settle(str(flight.original.id), spent, self._loop.monotonic())
        self.nudge()

    def _pump(self) -> None:
        self._look = None
        for outcome in self.core.next(self._loop.monotonic(), self._choose, commit=self._go):
            if not isinstance(outcome, Admitted):
                self._refuse(outcome.item.payload)
        wake_s = self.core.next_wake_s
        if wake_s is not None:
            self._look_by(max(wake_s, self._loop.monotonic() + LOOK_AGAIN_S))

    def _choose(self, item: Waiting) -> Choice | None:
        flight: Flight = item.payload
        flight.view.now_s = self._loop.monotonic()
        try:
            plan = flight.router.plan(flight.view, flight.tried)
        except (Busy, AllTried, NothingReady):
            return None
        forecast = flight.router.dispatcher.forecaster.of_chosen(flight.view, plan.server)
        objective = objective_for(self._admission.settings.objectives, flight.view.model, item.priority)
        fits = is_kept(objective, ttft_s=forecast.ttft_s, step_s=forecast.step_s, kv_share=forecast.kv_share)
        return Choice(plan.server.backend.key, fits, round(forecast.uncached_tokens), plan)

    def _go(self, admitted: Admitted) -> None:
        self._start(admitted.item.payload, admitted.choice.plan)
