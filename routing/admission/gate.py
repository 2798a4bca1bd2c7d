"""The queues in front of the models' engines, in one ingress replica: asyncio around `AdmissionCore`.

Uncontended, a request pays for the decision that it needs anyway: the plan made here is the one the proxy goes on with.
A request that waits holds a future. Its queue is looked at again when a request ends, and every `poll_s` for what else
may have changed: other replicas' load, the table, work the engines have done.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from hekla.platform.base.clock import Clock
from hekla.platform.base.tasks import TaskOwner
from hekla.routing.admission.core import AdmissionCore
from hekla.routing.admission.estimate import OutputEstimator
from hekla.routing.admission.interface import PLANNED, Admitted, Choice, Expired, Outcome, Spent, Waiting
from hekla.routing.admission.metrics import AdmissionMetrics
from hekla.routing.admission.objective import is_kept, objective_for
from hekla.routing.admission.refusals import expired, rejected
from hekla.routing.admission.settings import AdmissionSettings
from hekla.routing.backend import ModelServer, ServerKey
from hekla.routing.disaggregation import AllTried, NothingReady, Plan
from hekla.routing.exchange import Exchange
from hekla.routing.load import NOTHING, Counts
from hekla.routing.scheduling.dispatch import Dispatcher
from hekla.routing.scheduling.interface import Busy
from hekla.routing.traffic.deadlines import TIMEOUT_HEADER, asked_timeout_s
from hekla.routing.traffic.engines import Tries
from hekla.routing.view import LazyView

logger = logging.getLogger(__name__)

CACHED_S = 1.0
"""What engines hold of a waiting request's prompt is asked again after this long."""
PRIORITY_MAX = 100
"""Classes are from -100 to 100: each has its own queue."""
SERVICE = "\x1dservice"
"""Begins keys that are no rate limit's."""
QUEUES_MAX = 1024
"""Idle queues are dropped beyond this many."""

PlanFirst = Callable[[Exchange, ModelServer, LazyView], Plan]
"""Raises NothingReady, AllTried or Busy."""


def service_key(server: str, tenant: str, priority: int) -> str:
    """Names a tenant's service at a ModelServer in what replicas tell each other."""
    return f"{SERVICE}\x1e{server}\x1e{priority}\x1e{tenant}"


@dataclass(slots=True, eq=False)
class Place:
    """What a waiting request needs to be decided about: `Waiting.payload`."""

    exchange: Exchange
    view: LazyView
    server: ModelServer
    ready: asyncio.Future[Outcome] | None = None
    reserved: tuple[str, Counts] | None = None
    """Load counted between the decision and the moment its task goes on."""
    cached_tokens: int = 0
    cached_s: float = float("-inf")


class Queue:
    """One ModelServer's."""

    def __init__(self, settings: AdmissionSettings, on_service: Callable[[str, int, float], None]) -> None:
        self.core = AdmissionCore(settings, on_service=on_service)
        self.is_ticking = self.is_poked = False


class Turn:
    """An admitted request; a context manager that ends it."""

    __slots__ = ("_gate", "_item", "_queue", "server")

    def __init__(
        self, gate: Gate, server: ModelServer, queue: Queue | None = None, item: Waiting | None = None
    ) -> None:
        self._gate, self._queue, self._item = gate, queue, item
        self.server = server
        """With the engines that are ready now."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._queue is not None and self._item is not None:
            self._gate.end(self._queue, self._item)


class Gate:
    """`admit` waits for a request's turn. `server_now` gives a ModelServer as the table has it now."""

    def __init__(
        self, settings: AdmissionSettings, plan: PlanFirst, dispatcher: Dispatcher, *,
        server_now: Callable[[ServerKey], ModelServer | None], outputs: OutputEstimator, metrics: AdmissionMetrics,
        clock: Clock, tasks: TaskOwner,
    ) -> None:  # fmt: skip
        self.settings, self._plan, self._dispatcher = settings, plan, dispatcher
        self._server_now, self._outputs, self._metrics = server_now, outputs, metrics
        self._clock, self._tasks = clock, tasks
        self.on_service: Callable[[str, float], None] = lambda key, cost: None
        """Told what each ended request has cost, by its `service_key`: for the other replicas."""
        self._queues: dict[ServerKey, Queue] = {}
        self._numbers = itertools.count()

    def use(self, settings: AdmissionSettings) -> None:
        """Other settings from now on."""
        self.settings = settings
        for queue in self._queues.values():
            queue.core.use(settings)

    @property
    def waiting(self) -> int:
        """Requests that wait, for all models."""
        return sum(len(queue.core) for queue in self._queues.values())

    def length(self, server: ModelServer) -> int:
        """Requests that wait for this ModelServer."""
        queue = self._queues.get(server.key)
        return 0 if queue is None else len(queue.core)

    def explain(self) -> dict[str, Any]:
        """Every queue, by its ModelServer's name."""
        return {"/".join(key): queue.core.explain() for key, queue in self._queues.items()}

    def service(self, server: str, *, tenant: str, priority: int) -> float:
        """What a tenant has been served of a ModelServer (`namespace/name`), by all replicas, over its weight."""
        namespace, _, name = server.partition("/")
        queue = self._queues.get((namespace, name))
        return 0.0 if queue is None else queue.core.service(tenant, priority)

    def served_elsewhere(self, key: str, cost: float) -> None:
        """Another replica has served a tenant so much: `key` is a `service_key`, others are ignored."""
        mark, _, rest = key.partition("\x1e")
        if mark == SERVICE:
            name, priority, tenant = rest.split("\x1e", 2)
            namespace, _, server = name.partition("/")
            queue = self._queues.get((namespace, server))
            if queue is not None:
                queue.core.served_elsewhere(tenant, int(priority), cost)

    async def admit(self, exchange: Exchange, server: ModelServer, view: LazyView) -> Turn:
        """Returns when the request may go to an engine. Raises Refusal 429, or 504 at the client's own deadline."""
        if not self.settings.enabled:
            return Turn(self, server)
        queue, now_s = self._queue(server), self._clock.monotonic()
        place = Place(exchange, view, server)
        item = self._item(place, now_s)
        exchange.story.queue_length = len(queue.core)
        with exchange.trace.span("queue"):
            outcome = queue.core.enter(item, now_s, self._choose) or await self._wait(queue, item, place)
        if not isinstance(outcome, Admitted):
            self._metrics.refused(view.model, outcome.reason)
            raise expired(outcome, view.model) if isinstance(outcome, Expired) else rejected(outcome, view.model)
        self._metrics.admitted(view.model, item, outcome.waited_s)
        exchange.story.queue_wait_s = outcome.waited_s
        if outcome.choice.plan is not None:
            view.memo[PLANNED] = outcome.choice.plan
        return Turn(self, place.server, queue, item)

    def end(self, queue: Queue, item: Waiting) -> None:
        """An admitted request is over."""
        place: Place = item.payload
        exchange, usage = place.exchange, place.exchange.usage
        spent = None if exchange.first_byte_s is not None else Spent(0, 0)
        if usage is not None:
            spent = Spent(max(0, usage.prompt_tokens - usage.cached_tokens), usage.completion_tokens)
            if usage.completion_tokens:
                self._outputs.observe(place.view.model, item.tenant, usage.completion_tokens)
        self._metrics.ended(place.view.model, item)
        self._settle(queue, item, spent)

    def _settle(self, queue: Queue, item: Waiting, spent: Spent | None) -> None:
        queue.core.settle(item.id, spent, self._clock.monotonic())
        if queue.core.next_wake_s is not None:
            self._poke(queue)

    async def _wait(self, queue: Queue, item: Waiting, place: Place) -> Outcome:
        model = place.view.model
        place.ready = asyncio.get_running_loop().create_future()
        self._metrics.waits(model, item, 1)
        if queue.core.next_wake_s == 0.0:
            self._poke(queue)  # it took another's place, who is to know
        if not queue.is_ticking:
            queue.is_ticking = True
            self._tasks.spawn(self._tick(queue), "admission")
        try:
            return await place.ready
        except asyncio.CancelledError:
            self._metrics.cancelled(model, item)
            if not queue.core.withdraw(item.id):
                self._settle(queue, item, Spent(0, 0))  # its turn had come in the same moment
            raise
        finally:
            self._metrics.waits(model, item, -1)
            self._release(place)

    def _poke(self, queue: Queue) -> None:
        """Look at the queue once this turn of the loop is over."""
        if not queue.is_poked:
            queue.is_poked = True
            asyncio.get_running_loop().call_soon(self._run, queue)

    async def _tick(self, queue: Queue) -> None:
        try:
            while (wake_s := queue.core.next_wake_s) is not None:
                left_s = wake_s - self._clock.monotonic()
                await self._clock.sleep(max(0.001, min(self.settings.poll_s, left_s)))
                self._run(queue)
        finally:
            queue.is_ticking = False

    def _run(self, queue: Queue) -> None:
        queue.is_poked = False
        outcomes = queue.core.next(
            self._clock.monotonic(), self._choose, locality=self._cached_tokens, commit=self._commit
        )
        for outcome in outcomes:
            ready = outcome.item.payload.ready
            if isinstance(outcome, Expired) and ready is not None and not ready.done():
                ready.set_result(outcome)

    def _commit(self, admitted: Admitted) -> None:
        """Its task goes on in the loop's next turn: until then its load is counted here."""
        place: Place = admitted.item.payload
        choice = admitted.choice
        if choice.engine:
            tokens = choice.uncached_tokens or 0
            prompt = max(tokens, place.view.estimated_tokens)
            place.reserved = (choice.engine, Counts(1, tokens, 0, prompt, tokens))
            self._dispatcher.loads.add(*place.reserved)
        if place.ready is not None and not place.ready.done():
            place.ready.set_result(admitted)

    def _release(self, place: Place) -> None:
        if place.reserved is not None:
            engine, counts = place.reserved
            place.reserved = None
            self._dispatcher.loads.add(engine, NOTHING.minus(counts))

    def _choose(self, item: Waiting) -> Choice | None:
        place: Place = item.payload
        try:
            return self._decide(item, place)
        except (Busy, AllTried):
            return None
        except NothingReady:
            return Choice("")  # not a matter of waiting: the proxy says what is wrong
        except Exception:
            logger.exception("deciding about %s failed", place.exchange.request_id)
            return Choice("")  # it fails again where it is answered

    def _decide(self, item: Waiting, place: Place) -> Choice:
        view = place.view
        place.server = self._server_now(place.server.key) or place.server
        view.now_s = self._clock.monotonic()
        plan = self._plan(place.exchange, place.server, view)
        forecaster = self._dispatcher.forecaster
        answering = first = forecaster.of_chosen(view, plan.server)
        is_idle = not plan.server.load.requests
        if plan.prefill is not None:
            first = forecaster.of_chosen(view, plan.prefill)
            is_idle = is_idle and not plan.prefill.load.requests
        place.cached_tokens, place.cached_s = int(first.matched_tokens), view.now_s
        objective = objective_for(self.settings.objectives, view.model, item.priority)
        # An idle engine does as well as it ever will.
        fits = is_idle or is_kept(
            objective, ttft_s=first.ttft_s, step_s=answering.step_s, kv_share=answering.kv_share
        )  # fmt: skip
        return Choice(plan.server.backend.key, fits, round(first.uncached_tokens), plan)

    def _cached_tokens(self, item: Waiting) -> int:
        place: Place = item.payload
        if self._clock.monotonic() - place.cached_s > CACHED_S:
            place.cached_s = self._clock.monotonic()
            self._choose(item)
        return place.cached_tokens

    def _queue(self, server: ModelServer) -> Queue:
        queue = self._queues.get(server.key)
        if queue is None:
            if len(self._queues) >= QUEUES_MAX:
                for key in [key for key, old in self._queues.items() if old.core.is_idle]:
                    del self._queues[key]
            name = server.name
            queue = self._queues[server.key] = Queue(
                self.settings, lambda *served: self.on_service(service_key(name, *served[:2]), served[2])
            )
        queue.core.engines = len(server.backends)
        return queue

    def _item(self, place: Place, now_s: float) -> Waiting:
        exchange, view = place.exchange, place.view
        caller = exchange.caller
        session = view.session or view.headers.get(self.settings.boost.header, "")
        asked_s = asked_timeout_s(exchange.header(TIMEOUT_HEADER))
        return Waiting(
            id=str(next(self._numbers)),  # the client chooses the request's own
            arrived_s=now_s, tenant=view.tenant, weight=caller.weight,
            priority=max(-PRIORITY_MAX, min(PRIORITY_MAX, caller.priority)), session=session,
            deadline_s=None if asked_s is None else exchange.started_s + asked_s,
            uncached_tokens=view.estimated_tokens if view.token_ids is None else len(view.token_ids),
            output_tokens=self._outputs.estimate(view.model, view.tenant, view.output_tokens_max),
            size_bytes=len(view.body.raw), payload=place,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"Gate({ {'/'.join(key): queue.core for key, queue in self._queues.items()} })"


class Gated:
    """Tries on a ModelServer's engines (`Proxy.serve`), once it is the request's turn."""

    def __init__(self, gate: Gate, tries: Tries) -> None:
        self._gate, self._tries = gate, tries

    async def __call__(
        self, exchange: Exchange, server: ModelServer, view: LazyView, *, hide_usage: bool, hide_ids: bool
    ) -> None:
        with await self._gate.admit(exchange, server, view) as turn:
            await self._tries(exchange, turn.server, view, hide_usage=hide_usage, hide_ids=hide_ids)
