"""The ingress as one raw ASGI application: inference, model list, health, metrics, and the way to the platform."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Callable, Iterable

from hekla.platform.base.clock import Clock
from hekla.platform.base.ids import Ids
from hekla.platform.base.tasks import TaskOwner
from hekla.routing.access_log import AccessLog
from hekla.routing.admission.estimate import OutputEstimator
from hekla.routing.admission.gate import Gate, Gated
from hekla.routing.backend import Backend
from hekla.routing.config import RoutingSettings
from hekla.routing.configuration.following import LiveSettings
from hekla.routing.exchange import JSON_TYPE, ClientGone, Departure, Exchange, Receive, Scope, Send
from hekla.routing.external.book import ProviderBook
from hekla.routing.external.service import ProviderTarget
from hekla.routing.gateway import Doors, Gateway, Records
from hekla.routing.gossip import Address, Gossip
from hekla.routing.headers import safe_request_id
from hekla.routing.identity.interface import ADMIN, INFERENCE, METRICS
from hekla.routing.identity.service import Identity
from hekla.routing.identity.usage_reports import HttpUsageSink
from hekla.routing.limits.service import RateLimits
from hekla.routing.load import LoadBook
from hekla.routing.lora.metrics import LoraMetrics
from hekla.routing.lora.service import AdapterService
from hekla.routing.lora.sink import HttpDemandSink
from hekla.routing.metrics import RouterMetrics
from hekla.routing.observe.desk import Desk
from hekla.routing.observe.dry_run import DryRun
from hekla.routing.observe.metrics import EngineMetrics
from hekla.routing.observe.observer import Observer, tracer_of
from hekla.routing.observe.pages import is_debug_path
from hekla.routing.observe.parts import Parts
from hekla.routing.openai_api import (
    HEALTH_PATHS,
    METRICS_PATH,
    MODEL_LISTS,
    NOT_READ,
    ROUTED_PATHS,
    model_answer,
    model_list,
    model_of,
    table_not_read,
    wrong_path,
)
from hekla.routing.platform_proxy import PlatformProxy, is_platform_path
from hekla.routing.prefix.engine_facts import HttpEngineFacts
from hekla.routing.prefix.metrics import PrefixMetrics
from hekla.routing.prefix.service import PrefixService
from hekla.routing.prefix.sharing import RouteSharing
from hekla.routing.proxy import Proxy
from hekla.routing.refusal import Refusal
from hekla.routing.scheduling.service import Knowledge, SchedulingService
from hekla.routing.scrape import EngineScraper
from hekla.routing.source import HttpObjectSource, ObjectSource
from hekla.routing.table import RoutingTable
from hekla.routing.traffic.engines import EngineTarget
from hekla.routing.traffic.failover import Targets
from hekla.routing.traffic.guard import Traffic
from hekla.routing.traffic.journey import Journey
from hekla.routing.traffic.mirror import Mirror
from hekla.routing.translation.engines import TranslatedEngines
from hekla.routing.translation.exchange import Translation
from hekla.routing.upstream import Upstream
from hekla.routing.watch import TableKeeper

DRAIN_POLL_S = 0.02


def no_peers() -> tuple[Address, ...]:
    return ()


def no_platform() -> str | None:
    return None


def no_token() -> str:
    return ""


def build_ingress(
    settings: RoutingSettings, source: ObjectSource | None = None, *, clock: Clock, ids: Ids,
    platform_url: Callable[[], str | None] = no_platform, platform_token: Callable[[], str] = no_token,
    peers: Callable[[], Iterable[Address]] = no_peers,
) -> Ingress:  # fmt: skip
    """One ingress replica. Without a `source` the resource API at `platform_url` is followed.

    Raises ValueError on settings that name a plugin that does not exist.
    """
    upstream = Upstream(settings.upstream)
    if source is None:
        source = HttpObjectSource(
            lambda: upstream.session, platform_url, silence_s=settings.watch.silence_s, token=platform_token
        )
    return Ingress(
        settings, source, upstream, clock=clock, ids=ids, platform_url=platform_url, platform_token=platform_token,
        peers=peers,
    )  # fmt: skip


class Ingress:
    """`app` is the ASGI callable; `start` and `stop` frame it (or the ASGI lifespan does), `drain` comes before `stop`."""

    def __init__(
        self, settings: RoutingSettings, source: ObjectSource, upstream: Upstream, *, clock: Clock, ids: Ids,
        platform_url: Callable[[], str | None], platform_token: Callable[[], str], peers: Callable[[], Iterable[Address]],
    ) -> None:  # fmt: skip
        # What the file says is in force from the first moment on.
        self.live = LiveSettings(settings, self._use, clock=clock)
        settings = self.live.now
        self.settings, self.upstream, self._clock, self._ids = settings, upstream, clock, ids
        self._id_prefix, self._id_count = ids.uid(), itertools.count(1)
        self.metrics = RouterMetrics()
        self.loads = LoadBook()
        self.log = AccessLog(settings.access_log)
        self.keeper = TableKeeper(source, settings.watch, clock=clock, ids=ids, on_table=self._took_table)
        self.gossip = Gossip(
            self.loads, peers, settings.gossip, clock=clock, sender=ids.uid(),
            count=lambda direction, outcome: self.metrics.child(self.metrics.gossip, direction, outcome).inc(),
        )  # fmt: skip
        self.scraper = EngineScraper(
            self.loads, self._engines, self._page, settings.scrape, clock=clock, ids=ids,
            count=lambda outcome: self.metrics.child(self.metrics.scrapes, outcome).inc(), on_capacity=self._capacity,
        )  # fmt: skip
        self._tasks = TaskOwner("ingress")
        self.prefix = PrefixService(
            settings.prefix, HttpEngineFacts(upstream), clock=clock, ids=ids, shared_secret=settings.gossip.key
        )
        PrefixMetrics(self.prefix, self.metrics.registry)
        self.scheduling = SchedulingService(
            dataclasses.replace(settings.scheduling, config_file=""), settings.limits, self.loads, registry=self.metrics.registry,
            knowledge=Knowledge(self.prefix.knowledge, self.prefix.approximate, self.prefix.exact, self.prefix.exact.cached),
            clock=clock, on_change=self.metrics.plugin.clear, disaggregation=settings.disaggregation,
        )  # fmt: skip
        self.traffic = Traffic(settings.traffic, loads=self.loads, metrics=self.metrics, ids=ids)
        self._proxy = Proxy(
            settings, upstream, self.scheduling.dispatcher, metrics=self.metrics, clock=clock, ids=ids, traffic=self.traffic,
            server_now=lambda key: self.keeper.table.servers.get(key) if self.keeper.table else None,
        )  # fmt: skip
        self.identity = Identity(
            settings, source, fetch=self._issuer_page, clock=clock, ids=ids, registry=self.metrics.registry,
            sink=HttpUsageSink(lambda: upstream.session, platform_url, platform_token),
        )  # fmt: skip
        self.mirror = Mirror(settings.traffic.mirror, upstream, self.metrics.traffic, ids=ids, tasks=self._tasks)
        self._build_doors(settings)
        self.observer = Observer(settings.observe, tracer_of(settings.observe), clock)
        dry_run = DryRun(self._proxy.plan_first, self.prefix.prepare, self.limits, self.gate, clock)
        self.adapters = AdapterService(
            settings.lora, HttpDemandSink(lambda: upstream.session, platform_url, platform_token),
            lambda key: self.keeper.table.servers.get(key), replica=self._id_prefix,
            metrics=LoraMetrics(self.metrics.registry), clock=clock, retry_after_s=settings.retry_after_s,
        )  # fmt: skip
        engines = EngineTarget(
            Gated(self.gate, self._proxy.serve), self.prefix.prepare, settings.continuation, self.adapters
        )
        translation = Translation(settings.translation, clock, event_bytes_max=settings.limits.event_bytes_max)
        self.providers = ProviderBook(source, settings.watch, clock=clock, ids=ids)
        self.external = ProviderTarget(
            settings, self.providers, upstream, translation, metrics=self.metrics, clock=clock, ids=ids
        )
        all_engines = TranslatedEngines(engines, translation, settings.translation.engines)
        targets = Targets(all_engines, self.external, settings.traffic.failover, self.metrics.traffic)
        journey = Journey(self.traffic, targets, self.mirror, metrics=self.metrics, clock=clock, ids=ids)
        self.gateway = Gateway(
            settings, journey, lambda: self.keeper.table if self.keeper.synced else None,
            doors=Doors(self.identity, self.limits), records=Records(self.metrics, self.log, self.observer, dry_run),
            clock=clock, ids=ids, tasks=self._tasks,
        )  # fmt: skip
        self._build_desk(engines, targets)
        self._platform = PlatformProxy(upstream, platform_url, settings, platform_token)
        self._started = False
        self.is_draining = False

    def _build_doors(self, settings: RoutingSettings) -> None:
        """What a request passes before it is scheduled, and what of it the other replicas are told."""
        outputs = OutputEstimator()
        self.limits = RateLimits(
            settings.rate_limits, outputs=outputs, exceeded=self.metrics.admission.limited, clock=self._clock
        )
        self.gate = Gate(
            settings.admission, self._proxy.plan_first, self.scheduling.dispatcher, outputs=outputs,
            server_now=lambda key: self.keeper.table.servers.get(key) if self.keeper.table else None,
            metrics=self.metrics.admission, clock=self._clock, tasks=self._tasks,
        )  # fmt: skip
        self.gossip.sharing, self.limits.on_service = self.limits.ledger, self.gate.served_elsewhere
        self.gate.on_service = self.limits.ledger.taken
        self.gossip.ejections, self.gossip.sessions = self.traffic.health, self.traffic.sessions
        self.gossip.routes = RouteSharing(
            self.prefix.approximate, self.engine_keys, bytes_per_s=settings.gossip.routes_bytes_per_s
        )

    def _build_desk(self, engines: EngineTarget, targets: Targets) -> None:
        """What can be looked into, and what takes other settings while it runs."""
        parts = Parts(
            lambda: self.settings, lambda: self.keeper.table, self.loads, self.scheduling, self.traffic, self.prefix,
            self.gate, self.limits, lambda: self.live.held,
        )  # fmt: skip
        self.desk = Desk(parts, self.observer.decisions, self.identity, self._clock)
        self._engine_metrics = EngineMetrics(self.metrics.registry, parts, self._clock)
        self.live.count = self._reloaded
        self._live_parts: list[Callable[[RoutingSettings], None]] = [
            lambda new: self.scheduling.use(new.scheduling, new.limits), self.gateway.use, self._proxy.use,
            lambda new: self.gate.use(new.admission), lambda new: self.limits.use(new.rate_limits),
            lambda new: self.traffic.use(new.traffic), lambda new: targets.use(new.traffic.failover),
            lambda new: self.mirror.use(new.traffic.mirror), lambda new: engines.use(new.continuation),
            lambda new: self.adapters.use(new.lora),
            lambda new: self.scraper.use(new.scrape), lambda new: self.log.use(new.access_log),
            lambda new: self.prefix.tokeniser.use(new.prefix.tokeniser), self.identity.use,
            lambda new: self.observer.use(new.observe),
        ]  # fmt: skip

    @property
    def is_synced(self) -> bool:
        """Whether routes, and where they are asked for, keys have been read."""
        return self.keeper.synced and self.identity.is_ready

    async def start(self) -> None:
        """Idempotent. Returns at once; `/health` turns 200 when the table has synced."""
        if self._started:
            return
        self._started = True
        self.log.start()
        await self.upstream.start()
        await self.gossip.start()
        await self.prefix.start()
        await self.keeper.start()
        await self.providers.start()
        await self.identity.start()
        await self.scraper.start()
        await self.scheduling.start()
        await self.adapters.start()
        await self.live.start()

    async def drain(self, deadline_s: float) -> bool:
        """Unhealthy from now on; waits for requests in flight. True when none is left within `deadline_s`."""
        self.is_draining = True
        end = self._clock.monotonic() + deadline_s
        while self.gateway.in_flight and self._clock.monotonic() < end:
            await self._clock.sleep(DRAIN_POLL_S)
        return self.gateway.in_flight == 0

    async def stop(self) -> None:
        await self.live.stop()
        await self.adapters.stop()
        await self.scheduling.stop()
        await self.scraper.stop()
        await self.keeper.stop()
        await self.providers.stop()
        await self.identity.stop()
        await self.gossip.stop()
        await self.prefix.stop()
        await self._tasks.stop()
        await self.upstream.stop()
        await asyncio.to_thread(self.log.stop)
        await self.observer.stop()
        self._started = False

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1003})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, request_id="", started_s=self._clock.monotonic())
        exchange.request_id = safe_request_id(exchange.header(b"x-request-id")) or self._next_id()
        path, method = exchange.path, exchange.method
        if method == "POST" and path in ROUTED_PATHS:
            await self.gateway.handle(exchange)
        elif is_platform_path(path):
            await self._to_platform(exchange)
        elif method in ("GET", "HEAD") and path in HEALTH_PATHS:
            await self._health(exchange)
        elif method in ("GET", "HEAD") and (path in MODEL_LISTS or model_of(path) is not None):
            await self._models(exchange)
        elif method in ("GET", "HEAD") and path == METRICS_PATH:
            await self._metrics(exchange)
        elif method in ("GET", "HEAD") and is_debug_path(path):
            await self.desk.answer(exchange)
        else:
            await exchange.refuse(wrong_path(method, path))
        await exchange.linger()  # here, where it takes no place of a request being served

    def _next_id(self) -> str:
        """Unique: a fresh id of this replica and a count. A random id per request would cost more than the routing."""
        return f"{self._id_prefix}-{next(self._id_count):x}"

    async def _health(self, exchange: Exchange) -> None:
        if self.is_draining or not self.is_synced:
            reason = "draining" if self.is_draining else NOT_READ
            again = (b"retry-after", str(self.settings.retry_after_s).encode())
            await exchange.answer(503, b'{"message":"%b"}' % reason.encode(), [JSON_TYPE, again])
        else:
            await exchange.answer(200, b'{"message":"ok"}')

    async def _models(self, exchange: Exchange) -> None:
        name, owned_by = model_of(exchange.path), self.settings.owned_by
        if name is not None:
            exchange.path_label = "/v1/models/{id}"  # what a client asks for must not become a metric's label
        try:
            if not self.keeper.synced:
                raise table_not_read(self.settings.retry_after_s)
            caller = self.identity.admit(exchange, INFERENCE)
            models = tuple(model for model in self.keeper.table.models if caller.may_use(model))
            body = model_list(models, owned_by) if name is None else model_answer(name, models, owned_by)
            await exchange.answer(200, body)
        except Refusal as refusal:
            await exchange.refuse(refusal)
        self.gateway.account(exchange)

    async def _metrics(self, exchange: Exchange) -> None:
        try:
            self.identity.admit(exchange, METRICS)
        except Refusal as refusal:
            await exchange.refuse(refusal)
            return
        text = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
        self.metrics.log_dropped_lines(self.log.dropped)
        await exchange.answer(200, self.metrics.render(), [text])

    async def _to_platform(self, exchange: Exchange) -> None:
        try:
            self.identity.admit(exchange, ADMIN)
        except Refusal as refusal:
            await self._platform.refuse(exchange, refusal)
            return
        departures: list[Departure] = []
        task = asyncio.current_task()
        try:
            await self._platform.forward(
                exchange, lambda: departures.append(Departure(exchange.receive, self._tasks, task))
            )
        except asyncio.CancelledError:
            if task is None or not any(departure.gone for departure in departures):
                raise
            task.uncancel()
        except ClientGone:
            pass
        finally:
            for departure in departures:
                departure.stop()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    def _use(self, settings: RoutingSettings) -> None:
        """Other settings from now on, of those that can change. Raises ValueError, and nothing has changed then."""
        for use in self._live_parts:
            use(settings)
        self.settings = settings

    def _reloaded(self, outcome: str) -> None:
        self._engine_metrics.reloaded(outcome)
        self.scheduling.reloaded(outcome)

    def _took_table(self, table: RoutingTable) -> None:
        self.metrics.table_synced.set(1)
        self.traffic.took_table(table, self._clock.monotonic())
        self.adapters.took_table(table.servers)
        known = {backend.key for backend in self._engines()}
        self.loads.forget(known)
        self.scheduling.dispatcher.forget(known)
        self.prefix.took_engines(self._engines())
        self.external.forget_unknown()

    def _capacity(self, backend: Backend, tokens: int) -> None:
        self.scheduling.learn_capacity(backend, tokens)
        self.prefix.approximate.set_capacity(backend.key, tokens)

    def engine_keys(self) -> Iterable[str]:
        """The keys of the routing table's engines."""
        return (backend.key for backend in self._engines())

    def _engines(self) -> Iterable[Backend]:
        return (backend for server in self.keeper.table.servers.values() for backend in server.backends)

    async def _page(self, url: str) -> bytes:
        limits = self.settings.scrape
        return await self.upstream.page(url, timeout_s=limits.timeout_s, bytes_max=limits.page_bytes_max)

    async def _issuer_page(self, url: str) -> bytes:
        limits = self.settings.identity
        return await self.upstream.page(url, timeout_s=limits.jwks_timeout_s, bytes_max=limits.jwks_bytes_max)

    def __repr__(self) -> str:
        return f"Ingress({self.keeper.table!r}, in_flight={self.gateway.in_flight}, draining={self.is_draining})"
