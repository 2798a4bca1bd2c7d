"""Adapters on demand: a request for one that is declared and loaded nowhere waits until it is, and makes it so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from hekla.platform.base.clock import Clock
from hekla.platform.base.errors import Unavailable
from hekla.platform.base.tasks import TaskOwner
from hekla.routing.backend import ModelServer, ServerKey
from hekla.routing.exchange import Exchange
from hekla.routing.lora.demand import BASE, DemandBook
from hekla.routing.lora.hosting import can_serve
from hekla.routing.lora.metrics import LoraMetrics
from hekla.routing.lora.settings import LoraSettings
from hekla.routing.lora.sink import DemandSink
from hekla.routing.openai_api import route_not_found
from hekla.routing.refusal import Refusal
from hekla.routing.view import LazyView

logger = logging.getLogger(__name__)

NEWS_DELAY_S = 0.05
"""Requests that begin to wait together are told together."""
PAUSE_S = 0.25
"""After an engine was lost under a request: until its status says so, the table still names it."""
LOST = frozenset({"upstream_failed", "no_ready_engine"})
"""Codes of refusals that say: the engines that had the adapter are gone."""


class AdapterService:
    def __init__(
        self, settings: LoraSettings, sink: DemandSink, server_now: Callable[[ServerKey], ModelServer | None], *,
        replica: str, metrics: LoraMetrics, clock: Clock, retry_after_s: int,
    ) -> None:  # fmt: skip
        self._settings, self._sink, self._server_now = settings, sink, server_now
        self._replica, self._metrics, self._clock, self._retry_after_s = replica, metrics, clock, retry_after_s
        self._book = DemandBook()
        self._tasks = TaskOwner("adapters")
        self._news, self._table_changed = asyncio.Event(), asyncio.Event()
        self._started_s = clock.now()
        self.waiting = 0

    def use(self, settings: LoraSettings) -> None:
        self._settings = settings

    async def start(self) -> None:
        self._tasks.spawn(self._report_for_ever(), "demand")
        self._tasks.spawn(self._tell_at_once(), "news")

    async def stop(self) -> None:
        await self._tasks.stop()

    def took_table(self, servers: Mapping[ServerKey, ModelServer]) -> None:
        """The routing table is a new one."""
        self._book.keep(servers)
        self._table_changed.set()
        self._table_changed = asyncio.Event()

    def deadline_s(self) -> float:
        """Until when a request that begins now may wait for its adapter, in monotonic seconds."""
        return self._clock.monotonic() + self._settings.load_wait_s

    def note(self, server: ModelServer, view: LazyView) -> None:
        """A request is for this server: what the planner of places counts."""
        if server.adapters:
            is_declared = view.is_adapter and view.upstream_model in server.adapters
            self._book.count(server, view.upstream_model if is_declared else BASE)

    async def ready(self, server: ModelServer, view: LazyView, deadline_s: float) -> ModelServer:
        """The server as it is when an engine has the request's adapter; at once for all other requests.

        Raises Refusal: 503 when that takes too long, 404 when the adapter is declared no more.
        """
        adapter = view.upstream_model
        if not view.is_adapter or adapter not in server.adapters or can_serve(server, adapter):
            return server
        if self.waiting >= self._settings.waiting_max:
            raise self._not_loaded(view, "too many requests wait for adapters")
        self.waiting += 1
        self._book.waits(server.key, adapter)
        self._news.set()
        began_s = self._clock.monotonic()
        try:
            return await self._wait(server, view, deadline_s)
        finally:
            self.waiting -= 1
            self._book.waits_no_more(server.key, adapter)
            self._metrics.waited(view.model, self._clock.monotonic() - began_s)

    def may_wait_again(self, exchange: Exchange, view: LazyView, server: ModelServer, refusal: Refusal) -> bool:
        """Whether the engines that had the adapter were lost under the request, so that it can be loaded elsewhere."""
        is_lost = refusal.code in LOST or (refusal.code == "engines_busy" and exchange.upstream_attempts > 0)
        is_declared = view.is_adapter and view.upstream_model in server.adapters
        return is_declared and is_lost and not exchange.status

    async def again(self, server: ModelServer, view: LazyView, deadline_s: float) -> ModelServer:
        """After a loss: the server as it is once the table knows of it. Raises Refusal as `ready` does."""
        if self._clock.monotonic() + PAUSE_S >= deadline_s:
            raise self._not_loaded(view, "the engines that had it were lost")
        await self._clock.sleep(PAUSE_S)
        present = self._server_now(server.key)
        return await self.ready(present or server, view, deadline_s)

    async def _wait(self, server: ModelServer, view: LazyView, deadline_s: float) -> ModelServer:
        adapter = view.upstream_model
        while True:
            changed = self._table_changed
            present = self._server_now(server.key)
            if present is None or adapter not in present.adapters:
                raise route_not_found(view.model)
            if can_serve(present, adapter):
                return present
            left_s = deadline_s - self._clock.monotonic()
            if left_s <= 0:
                raise self._not_loaded(view, f"not within {self._settings.load_wait_s:g} s")
            async with TaskOwner("adapter-wait") as tasks:
                waits = [tasks.spawn(changed.wait(), "table"), tasks.spawn(self._clock.sleep(left_s), "deadline")]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)

    def _not_loaded(self, view: LazyView, why: str) -> Refusal:
        self._metrics.refused(view.model)
        message = f"the adapter {view.model!r} is not loaded on any engine: {why}; try again later"
        return Refusal(503, message, kind="scheduling", code="adapter_not_loaded", retry_after_s=self._retry_after_s)

    async def _report_for_ever(self) -> None:
        while True:
            await self._clock.sleep(self._settings.report_s)
            await self._report()

    async def _tell_at_once(self) -> None:
        while True:
            await self._news.wait()
            await self._clock.sleep(NEWS_DELAY_S)
            self._news.clear()
            await self._report()

    async def _report(self) -> None:
        for server, report in self._book.news(started_s=self._started_s, now_s=self._clock.now()).items():
            try:
                await self._sink.tell(server, self._replica, report)
            except Unavailable as error:
                self._book.failed(server)
                logger.info("%s; told again later", error)

    def __repr__(self) -> str:
        return f"AdapterService({self.waiting} requests wait)"
