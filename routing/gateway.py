"""The journey of one inference request: read, parse, match, schedule and proxy, account."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from hekla.platform.base.clock import Clock
from hekla.platform.base.ids import Ids
from hekla.platform.base.tasks import TaskOwner
from hekla.routing.access_log import AccessLog, AccessRecord
from hekla.routing.body import MalformedBody
from hekla.routing.config import RoutingSettings
from hekla.routing.exchange import BodyPool, ClientGone, Departure, Exchange, HeldBytes
from hekla.routing.identity.service import Identity
from hekla.routing.limits.service import RateLimits
from hekla.routing.metrics import UNKNOWN, RouterMetrics
from hekla.routing.observe.dry_run import DryRun
from hekla.routing.observe.explanation import DRY_RUN
from hekla.routing.observe.observer import Observer
from hekla.routing.openai_api import parse_request, route_not_found, table_not_read
from hekla.routing.refusal import Refusal
from hekla.routing.table import RoutingTable
from hekla.routing.traffic.engines import malformed
from hekla.routing.traffic.journey import Journey
from hekla.routing.view import LazyView

logger = logging.getLogger(__name__)

CLIENT_CLOSED = 499
"""nginx's status for a client that left; only ever seen in metrics and the access log."""


LOGGED_MODEL_CHARS_MAX = 256
"""A model's name is the client's to choose, up to the size of a body; a log line holds this much of it."""


@dataclass(frozen=True)
class Doors:
    """What a request has to pass before it is scheduled."""

    identity: Identity
    limits: RateLimits


@dataclass(frozen=True)
class Records:
    """Where a finished request is written down."""

    metrics: RouterMetrics
    log: AccessLog
    observer: Observer
    dry_run: DryRun


class Gateway:
    def __init__(
        self, settings: RoutingSettings, journey: Journey, table: Callable[[], RoutingTable | None], *, doors: Doors,
        records: Records, clock: Clock, ids: Ids, tasks: TaskOwner,
    ) -> None:  # fmt: skip
        self._settings, self._journey, self._table = settings, journey, table
        self._clock, self._ids, self._tasks = clock, ids, tasks
        self._metrics, self._log = records.metrics, records.log
        self._observer, self._dry_run = records.observer, records.dry_run
        self._identity, self._limits = doors.identity, doors.limits
        self.in_flight = 0
        self.bodies = BodyPool(settings)

    def use(self, settings: RoutingSettings) -> None:
        """Other settings from the next request on."""
        self._settings = settings
        self.bodies.use(settings)

    async def handle(self, exchange: Exchange) -> None:
        """Answers one request to a routed path, whatever happens."""
        self.in_flight += 1
        self._metrics.active.inc()
        self._observer.begin(exchange)
        held = HeldBytes(self.bodies)
        try:
            await self._guarded(exchange, held)
        finally:
            held.free()
            self.in_flight -= 1
            self._metrics.active.dec()
            self.account(exchange)

    async def _guarded(self, exchange: Exchange, held: HeldBytes) -> None:
        try:
            if self.in_flight > self._settings.limits.requests_in_flight_max:
                raise self._too_many()
            with exchange.trace.span("identity"):
                self._identity.admit(exchange)  # before its body: a stranger's is not worth the memory
            raw = await exchange.read_body(self._settings.limits, held)
            await self._while_client_stays(exchange, raw)
        except Refusal as refusal:
            await exchange.refuse(refusal)
        except (ClientGone, OSError):
            # An engine's errors have other names by now: this is a server's way to say that `send` has no one to go to.
            _closed_by_client(exchange)
        except Exception:
            logger.exception("request %s failed", exchange.request_id)
            if exchange.status == 0:
                await exchange.refuse(Refusal(500, "the ingress failed; its log says why", kind="internal"))
            exchange.error_kind = "internal"

    async def _while_client_stays(self, exchange: Exchange, raw: bytes) -> None:
        task = asyncio.current_task()
        departure = Departure(exchange.receive, self._tasks, task)
        try:
            await self._serve(exchange, raw)
        except asyncio.CancelledError:
            if not departure.gone or task is None:
                raise
            task.uncancel()
            _closed_by_client(exchange)
        finally:
            departure.stop()

    async def _serve(self, exchange: Exchange, raw: bytes) -> None:
        body, model = parse_request(exchange.path, raw)
        exchange.model = model[:LOGGED_MODEL_CHARS_MAX]
        table = self._table()
        if table is None:
            raise table_not_read(self._settings.retry_after_s)
        if not table.knows(model):
            raise route_not_found(model)
        self._identity.allow(exchange.caller, model)
        view = LazyView(body, exchange.path, exchange.raw_headers, model=model, chance=self._ids.random)
        view.tenant = exchange.caller.tenant
        match = exchange.match = self._journey.match(exchange, view, table)
        if match is None:
            raise route_not_found(model)
        try:
            exchange.estimated_tokens = view.estimated_tokens
        except MalformedBody as error:
            raise malformed(error) from error
        if self._observer.asked(exchange) == DRY_RUN:
            await self._dry_run.answer(exchange, view)
            return
        in_progress = self._metrics.child(self._metrics.downstream, model).track_inprogress()
        with in_progress, self._limits.hold(exchange, view):
            await self._journey.serve(exchange, view, table)

    def account(self, exchange: Exchange) -> None:
        """Record an exchange that is over."""
        now_s = self._clock.monotonic()
        table = self._table()
        model = exchange.model if exchange.model and table is not None and table.knows(exchange.model) else UNKNOWN
        self._metrics.finished(exchange, model, now_s)
        self._identity.account(exchange, model)
        self._observer.end(exchange)
        if self._log.enabled:
            self._log.record(AccessRecord.of(exchange, self._clock.now(), now_s))

    def _too_many(self) -> Refusal:
        limit = self._settings.limits.requests_in_flight_max
        message = f"this ingress serves {limit} requests at once (limits.requests_in_flight_max); try again later"
        return Refusal(429, message, kind="scheduling", code="ingress_busy", retry_after_s=self._settings.retry_after_s)


def _closed_by_client(exchange: Exchange) -> None:
    exchange.status = CLIENT_CLOSED
    exchange.error_kind, exchange.error_message = "client_closed", "the client left before the answer was whole"
