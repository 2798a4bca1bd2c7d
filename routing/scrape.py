"""Asks every engine for its own numbers, about once a second: the slow correction of the load counted here.

A request counts from the moment an engine is chosen (`hekla.routing.load`); what only the engine knows is how many of
its requests it holds back. A page that does not come changes nothing, and what was last heard counts for nothing once
it is old: routing never depends on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from hekla.platform.base.clock import Clock
from hekla.platform.base.errors import Unavailable
from hekla.platform.base.ids import Ids
from hekla.platform.base.tasks import TaskOwner
from hekla.routing.backend import Backend
from hekla.routing.config import ScrapeSettings
from hekla.routing.engine_metrics import Report, parse_report
from hekla.routing.load import LoadBook

logger = logging.getLogger(__name__)

FetchPage = Callable[[str], Awaitable[bytes]]
"""The body at a URL. Raises Unavailable; has its own timeout."""


class EngineScraper:
    """`engines` gives those of the current table at any time."""

    def __init__(
        self, loads: LoadBook, engines: Callable[[], Iterable[Backend]], fetch: FetchPage, settings: ScrapeSettings, *,
        clock: Clock, ids: Ids, count: Callable[[str], None] = lambda outcome: None,
        on_capacity: Callable[[Backend, int], None] = lambda engine, tokens: None,
    ) -> None:  # fmt: skip
        self._loads, self._engines, self._fetch, self._settings = loads, engines, fetch, settings
        self._clock, self._ids, self._count, self._on_capacity = clock, ids, count, on_capacity
        self._asked: set[str] = set()
        self._heard: dict[str, tuple[float, int]] = {}
        """When it was asked, and how many waited."""
        self._slots = asyncio.Semaphore(settings.concurrency_max)
        self._tasks = TaskOwner("scrape")

    def use(self, settings: ScrapeSettings) -> None:
        """Other settings from the next round on."""
        self._settings = settings

    async def start(self) -> None:
        if self._settings.period_s > 0:
            self._tasks.spawn(self._run(), "rounds")

    async def stop(self) -> None:
        await self._tasks.stop()

    async def _run(self) -> None:
        while True:
            # From half to one and a half periods: replicas that started together do not ask together.
            await self._clock.sleep(self._settings.period_s * (0.5 + self._ids.random()))
            engines = {engine.key: engine for engine in self._engines()}
            self._expire(engines)
            for key, engine in engines.items():
                if key not in self._asked:
                    self._asked.add(key)
                    self._tasks.spawn(self._ask(engine), key)

    async def _ask(self, engine: Backend) -> None:
        try:
            async with self._slots:
                asked_s = self._clock.monotonic()
                report = parse_report(await self._fetch(engine.url + "/metrics"))
            self._take(engine.key, report, asked_s)
            if report.kv_capacity_tokens:
                self._on_capacity(engine, report.kv_capacity_tokens)
            self._count("ok" if report != Report() else "empty")
        except Unavailable as error:
            self._count("failed")
            logger.debug("no metrics from %s: %s", engine.key, error)
        finally:
            self._asked.discard(engine.key)

    def _take(self, key: str, report: Report, asked_s: float) -> None:
        """A queue counts as long as in the shorter of two reports: one may fall just before a burst is admitted."""
        before = self._heard.get(key)
        # The page is as old as the question, should the answer have taken long.
        self._heard[key] = (asked_s, report.waiting or 0)
        self._loads.report_memory(key, report.kv_usage, report.adapters)
        if before is not None:
            waiting = None if report.waiting is None else min(report.waiting, before[1])
            self._loads.report(key, report.running, waiting)

    def _expire(self, engines: Iterable[str]) -> None:
        oldest_s = self._clock.monotonic() - self._settings.stale_s
        gone = self._heard.keys() - set(engines)
        for key in [key for key, (heard_s, _) in self._heard.items() if heard_s < oldest_s or key in gone]:
            del self._heard[key]
            self._loads.report(key, None, None)
            self._loads.report_memory(key, None, None)
