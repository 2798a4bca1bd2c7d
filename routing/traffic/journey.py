"""A matched request's way through the traffic policies: its session, its copy, its targets, its deadline."""

from __future__ import annotations

import asyncio
import math

from hekla.platform.base.clock import Clock
from hekla.platform.base.ids import Ids
from hekla.routing.exchange import Exchange
from hekla.routing.metrics import RouterMetrics
from hekla.routing.refusal import Refusal, stream_error
from hekla.routing.table import Match, RoutingTable
from hekla.routing.traffic.deadlines import TIMEOUT_HEADER, asked_timeout_s
from hekla.routing.traffic.failover import Targets
from hekla.routing.traffic.guard import Traffic
from hekla.routing.traffic.mirror import Mirror
from hekla.routing.view import LazyView


class Journey:
    def __init__(
        self, traffic: Traffic, targets: Targets, mirror: Mirror, *, metrics: RouterMetrics, clock: Clock, ids: Ids
    ) -> None:
        self._traffic, self._targets, self._mirror = traffic, targets, mirror
        self._metrics, self._clock, self._ids = metrics, clock, ids

    def match(self, exchange: Exchange, view: LazyView, table: RoutingTable) -> Match | None:
        """The rule and the target of a request, which its session decides where it has one."""
        return table.match(
            view.model, exchange.path, view.headers, self._ids.random(),
            session_of=lambda route: self._traffic.session_of(exchange, view.headers, route),
        )  # fmt: skip

    async def serve(self, exchange: Exchange, view: LazyView, table: RoutingTable) -> None:
        """Answers the exchange, whose `match` is set, by its deadline. Raises Refusal while nothing has been sent."""
        match = exchange.match
        assert match is not None, "a request is matched before it is served"
        asked_s = asked_timeout_s(exchange.header(TIMEOUT_HEADER))
        end_s = self._traffic.deadlines(match.server, asked_s, exchange.started_s).end_s
        shadow = table.shadow(match)
        if shadow is not None:
            self._mirror.offer(exchange, view, match, shadow)
        if math.isinf(end_s):
            await self._targets.serve(exchange, view, table)
            return
        try:
            async with asyncio.timeout(end_s - self._clock.monotonic()) as limit:
                await self._targets.serve(exchange, view, table)
        except TimeoutError:
            if not limit.expired():
                raise
            await self._end_late(exchange, view, end_s - exchange.started_s)

    async def _end_late(self, exchange: Exchange, view: LazyView, total_s: float) -> None:
        """The time is up: an error where none of the answer has been sent, an error event in a stream, else a cut."""
        self._metrics.child(self._metrics.traffic.deadlines, view.model).inc()
        message = f"the answer was not whole within {total_s:g} s"
        if not exchange.status:
            raise Refusal(504, message, kind="proxy", code="deadline_exceeded")
        exchange.error_kind, exchange.error_message = "proxy", message
        if exchange.is_stream:
            await exchange.finish(stream_error(exchange.path, message, "deadline_exceeded"))
