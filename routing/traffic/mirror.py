"""Copies of requests for a shadow target: sent and forgotten.

A copy never makes its original wait, fail or count as load: it starts when the original does, runs in a task of its own, and
its engine is chosen by the copies under way alone. What does not fit the bounds is dropped and counted.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import aiohttp

from hekla.platform.base.ids import Ids
from hekla.platform.base.tasks import TaskOwner
from hekla.routing.backend import Backend, ModelServer
from hekla.routing.exchange import Exchange
from hekla.routing.headers import to_engine
from hekla.routing.table import Match
from hekla.routing.traffic.affinity import serving
from hekla.routing.traffic.metrics import TrafficMetrics
from hekla.routing.traffic.settings import MirrorSettings
from hekla.routing.upstream import AttemptFailed, Upstream
from hekla.routing.view import LazyView

MARK = "x-hekla-mirror"
"""Header of a copy; its value is the ModelRoute's name."""
ID_SUFFIX = "-mirror"
"""An engine may serve original and copy both, and two requests of one id upset it."""


class Mirror:
    def __init__(
        self, settings: MirrorSettings, upstream: Upstream, metrics: TrafficMetrics, *, ids: Ids, tasks: TaskOwner
    ) -> None:
        self._settings, self._upstream, self._metrics = settings, upstream, metrics
        self._ids, self._tasks = ids, tasks
        self._active: Counter[str] = Counter()
        """Copies under way by engine."""
        self.bytes_held = 0

    def use(self, settings: MirrorSettings) -> None:
        self._settings = settings

    @property
    def in_flight(self) -> int:
        return self._active.total()

    def offer(self, exchange: Exchange, view: LazyView, match: Match, shadow: ModelServer) -> None:
        """Begin a copy of the request if the rule's share draws it. Returns at once and never raises."""
        mirror = match.rule.mirror
        if mirror is None or (mirror.share < 1 and self._ids.random() >= mirror.share):
            return
        engines, size = serving(shadow), len(view.asked.raw)
        if not engines:
            self._count(match, shadow, "no_engine")
        elif self.in_flight >= self._settings.concurrency_max or self.bytes_held + size > self._settings.bytes_max:
            self._count(match, shadow, "dropped")
        else:
            self._begin(exchange, view, match, shadow, self._least(engines))

    def _begin(self, exchange: Exchange, view: LazyView, match: Match, shadow: ModelServer, engine: Backend) -> None:
        body = view.asked
        if shadow.model and not match.is_adapter:
            body = body.edited({"model": shadow.model})
        headers = [*to_engine(exchange.raw_headers, exchange.request_id + ID_SUFFIX), (MARK, match.route.key)]
        self._active[engine.key] += 1
        self.bytes_held += len(body.raw)
        self._metrics.mirroring.inc()
        self._tasks.spawn(self._copy(engine, exchange.path, headers, body.raw, (match, shadow)), "mirror")

    async def _copy(
        self, engine: Backend, path: str, headers: list[tuple[str, str]], body: bytes, of: tuple[Match, ModelServer]
    ) -> None:
        outcome = "failed"
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                outcome = await self._ask(engine, engine.url + path, headers, body)
        except (AttemptFailed, aiohttp.ClientError, OSError):  # TimeoutError is an OSError
            pass
        finally:
            self._active[engine.key] -= 1
            self._active = +self._active
            self.bytes_held -= len(body)
            self._metrics.mirroring.dec()
            self._count(*of, outcome)

    async def _ask(self, engine: Backend, url: str, headers: list[tuple[str, str]], body: bytes) -> str:
        response = await self._upstream.post(engine.key, url, headers=headers, body=body, header_timeout_s=None)
        try:
            async for _ in response.content.iter_any():
                pass
            return f"{response.status // 100}xx"
        finally:
            response.close()

    def _least(self, engines: list[Backend]) -> Backend:
        fewest = min(self._active[engine.key] for engine in engines)
        equals = [engine for engine in engines if self._active[engine.key] == fewest]
        return equals[int(self._ids.random() * len(equals))]

    def _count(self, match: Match, shadow: ModelServer, outcome: str) -> None:
        self._metrics.mirrored.labels(match.route.key, shadow.name, outcome).inc()

    def check(self) -> None:
        """Invariant: what is held belongs to copies under way."""
        assert self.bytes_held >= 0
        assert self.bytes_held == 0 or self.in_flight > 0, self.bytes_held
