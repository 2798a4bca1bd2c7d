"""Tries engines until one answers, and relays its bytes.

A try may be repeated on another engine as long as nothing has reached the client: the connection failed, the headers
came too late, or the answer was 429 or 5xx. A 4xx is the client's to see and is never repeated. Once bytes have
reached the client and the engine dies, `hekla.routing.continuation` has another engine go on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import NoReturn

import aiohttp

from hekla.platform.base.clock import Clock
from hekla.platform.base.ids import Ids
from hekla.routing.admission.interface import PLANNED
from hekla.routing.backend import ModelServer, RetryPolicy, ServerKey
from hekla.routing.body import Body
from hekla.routing.call import Call
from hekla.routing.config import RoutingSettings
from hekla.routing.continuation.carrier import Continuation
from hekla.routing.continuation.decision import CONTINUED_PATHS
from hekla.routing.continuation.record import Record
from hekla.routing.disaggregation import AllTried, NothingReady, Plan
from hekla.routing.exchange import Exchange
from hekla.routing.metrics import RouterMetrics, backend_labels
from hekla.routing.pairs.bootstrap import Bootstraps
from hekla.routing.pairs.flow import PairFlow, PairParts
from hekla.routing.refusal import EngineRefusal, Refusal
from hekla.routing.relay import Relay
from hekla.routing.scheduling.dispatch import Dispatcher
from hekla.routing.scheduling.interface import Busy, Candidate
from hekla.routing.traffic.deadlines import IdleWatch
from hekla.routing.traffic.guard import DEFERRED_STATUSES, Traffic
from hekla.routing.traffic.health import Verdict
from hekla.routing.trips import LiveTrip, Trips
from hekla.routing.upstream import AttemptFailed, StreamBroken, Upstream
from hekla.routing.usage import EventRelay
from hekla.routing.view import LazyView

RETRIED_STATUSES = frozenset({429, 500, 502, 503, 504})
"""Another engine may do better. 501 and 505 are about the request, not the engine's state."""


class Proxy:
    def __init__(
        self, settings: RoutingSettings, upstream: Upstream, dispatcher: Dispatcher, *,
        metrics: RouterMetrics, clock: Clock, ids: Ids, traffic: Traffic,
        server_now: Callable[[ServerKey], ModelServer | None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._settings, self._upstream, self._dispatcher = settings, upstream, dispatcher
        self._trips, self._metrics, self._clock = Trips(dispatcher, clock), metrics, clock
        self._traffic, self._relay = (
            traffic,
            Relay(metrics, clock, held_bytes_max=settings.upstream.answer_held_bytes_max),
        )
        bootstraps = Bootstraps(upstream.page, settings.disaggregation, clock)
        self._pairs = PairFlow(
            settings.disaggregation,
            PairParts(self._ask, self._relay.relay, self._trips, dispatcher.transfers, bootstraps),
            clock=clock, ids=ids, answer_bytes_max=settings.upstream.prefill_body_bytes_max,
        )  # fmt: skip
        self._continuation = Continuation(
            settings.continuation, upstream, plan=self._plan, attempt=self._attempt, server_now=server_now,
            metrics=metrics, clock=clock,
        )  # fmt: skip

    def use(self, settings: RoutingSettings) -> None:
        """Other settings from the next request on."""
        self._settings = settings
        self._continuation.use(settings.continuation)

    async def serve(
        self, exchange: Exchange, server: ModelServer, view: LazyView, *, hide_usage: bool, hide_ids: bool = False
    ) -> None:
        """Answers the exchange from an engine of `server`. Raises Refusal while nothing has been sent."""
        call = self._call(exchange, server, view, hide_usage=hide_usage, hide_ids=hide_ids)
        policy = server.retry or RetryPolicy(
            self._settings.upstream.retry_attempts, self._settings.upstream.retry_interval_s
        )
        self._traffic.requested(server, self._clock.monotonic())
        last: AttemptFailed | None = None
        for tries in range(policy.attempts + 1):
            if last is not None and not await self._before_retry(call, last, policy, tries):
                break
            try:
                plan = self._plan(call)
            except AllTried:
                break
            exchange.upstream_attempts += 1
            try:
                await self._attempt(call, plan)
                self._blame(call)
                return
            except AttemptFailed as failure:
                last = failure
            except StreamBroken as broken:
                self._blame(call)
                await self._continuation.carry_on(call, broken)
                return
        self._give_up(call, last)

    def _call(
        self, exchange: Exchange, server: ModelServer, view: LazyView, *, hide_usage: bool, hide_ids: bool
    ) -> Call:
        limits, continuation = self._settings.limits, self._settings.continuation
        is_continued = continuation.attempts_max and exchange.path in CONTINUED_PATHS and view.body.is_true("stream")
        record = Record(continuation.record_bytes_max) if is_continued else None
        held_max = limits.event_bytes_max + (continuation.record_bytes_max if hide_ids else 0)
        events = EventRelay(hide_usage=hide_usage, hide_ids=hide_ids, held_bytes_max=held_max, record=record)
        call = Call(exchange, server, view, events)
        call.record, call.hides_usage, call.hides_ids = record, hide_usage, hide_ids
        return call

    def _give_up(self, call: Call, last: AttemptFailed | None) -> NoReturn:
        """An engine's own 429 is the client's to see; anything else becomes one 503."""
        exchange = call.exchange
        if last is not None and last.status == 429 and call.rejection is not None:
            raise EngineRefusal(last.reason, *call.rejection, retry_after_s=self._settings.retry_after_s)
        reason = "none was left to try" if last is None else f"the last: {last.reason}"
        message = f"request to all pods failed after {exchange.upstream_attempts} tries; {reason}"
        retry_after_s = self._settings.retry_after_s
        raise Refusal(503, message, kind="proxy", code="upstream_failed", retry_after_s=retry_after_s)

    def _plan(self, call: Call) -> Plan:
        view, retry_after_s = call.view, self._settings.retry_after_s
        planned: Plan | None = view.memo.pop(PLANNED, None)
        if planned is not None and not call.tried:
            return planned
        view.now_s = self._clock.monotonic()
        try:
            try:
                return self._choose(call)
            except AllTried:
                # A broken connection says nothing about the engine: with no other left, ask it again.
                if not call.unreached:
                    raise
                call.tried -= call.unreached
                call.unreached.clear()
                return self._choose(call)
        except NothingReady:
            message = f"no ready engine for the model {view.model!r}"
            raise Refusal(
                503, message, kind="pod_discovery", code="no_ready_engine", retry_after_s=retry_after_s
            ) from None
        except Busy as busy:
            message = f"every engine of the model {view.model!r} is busy; try again later"
            raise Refusal(429, message, kind="scheduling", code="engines_busy", retry_after_s=retry_after_s) from busy

    def plan_first(self, exchange: Exchange, server: ModelServer, view: LazyView) -> Plan:
        """What a first try now (`view.now_s`) would be. Raises NothingReady, AllTried or Busy."""
        if exchange.story.is_planned:  # a waiting request is planned again and again: the first time is told
            return self._plan_without((), exchange, server, view)
        exchange.story.is_planned = True
        with exchange.trace.span("schedule"):
            return self._plan_without((), exchange, server, view)

    def _choose(self, call: Call) -> Plan:
        with call.exchange.trace.span("schedule"):
            return self._plan_without(call.tried, call.exchange, call.server, call.view)

    def _plan_without(self, tried: Collection[str], exchange: Exchange, server: ModelServer, view: LazyView) -> Plan:
        meter = self._metrics.plugin_meter(view.model)
        return self._traffic.choose(
            server, exchange.match, tried, view.now_s,
            plan=lambda tried: self._dispatcher.plan(server, view, tried, meter),
        )  # fmt: skip

    def _blame(self, call: Call) -> None:
        """Another engine has served the request: it was not the request's fault that these failed."""
        now_s = self._clock.monotonic()
        for verdict in call.suspected:
            verdict.failed(now_s)

    async def _before_retry(self, call: Call, last: AttemptFailed, policy: RetryPolicy, tries: int) -> bool:
        """Notes the failure and waits; False when there may be no further try."""
        call.tried.add(last.engine)
        if last.unreached:
            call.unreached.add(last.engine)
        is_last_left = len(call.server.backends) <= len(call.tried)
        if (is_last_left and not call.unreached) or not self._traffic.may_try_again(
            call.server, self._clock.monotonic()
        ):
            return False
        reason = str(last.status) if last.status else ("unreached" if last.unreached else "timeout")
        labels = (call.view.model, call.server.name, reason)
        self._metrics.child(self._metrics.retries, *labels).inc()
        # Another engine need not be waited for; a manifest that names an interval is obeyed.
        if call.server.retry is not None or is_last_left:
            await self._clock.sleep(self._traffic.wait_s(policy, tries))
        return True

    async def _attempt(self, call: Call, plan: Plan) -> None:
        """One try. Raises AttemptFailed while the client has got nothing."""
        exchange, body = call.exchange, call.view.body
        now_s = exchange.upstream_started_s = self._clock.monotonic()
        exchange.first_byte_s = exchange.prefill_s = None
        self._traffic.goes_to(call.server, exchange.match, plan.server.backend.key, now_s)
        exchange.story.tried(plan.server.backend.key, plan, now_s)
        if (verdict := plan.verdict) is not None:
            labels = (call.view.model, call.server.name, verdict.way, verdict.reason)
            self._metrics.child(self._metrics.prefill_decisions, *labels).inc()
        if verdict is not None and verdict.way == "remote":
            await self._pairs.run(call, plan)
            return
        with self._trips.begin(call, plan.server) as trip:
            await self._ask(call, plan.server, body, trip, self._relay.relay)

    async def _ask(
        self, call: Call, candidate: Candidate, body: Body, trip: LiveTrip,
        use: Callable[[Call, aiohttp.ClientResponse, LiveTrip], Awaitable[None]], *, is_prefill: bool = False,
    ) -> None:  # fmt: skip
        """Sends `body` to an engine and hands its answer to `use`; `trip` counts it as load meanwhile."""
        with call.exchange.trace.span("prefill" if is_prefill else "engine") as span:
            span.set("hekla.engine", candidate.backend.key)
            await self._ask_within(call, candidate, body, trip, use, is_prefill=is_prefill)

    async def _ask_within(
        self, call: Call, candidate: Candidate, body: Body, trip: LiveTrip,
        use: Callable[[Call, aiohttp.ClientResponse, LiveTrip], Awaitable[None]], *, is_prefill: bool,
    ) -> None:  # fmt: skip
        exchange, backend = call.exchange, candidate.backend
        active = self._metrics.child(self._metrics.upstream, call.server.name, *backend_labels(exchange))
        active.inc()
        exchange.backend, exchange.upstream_status = backend.key, 0
        limits = self._traffic.deadlines(call.server, None, exchange.started_s)
        verdict = call.verdict = self._traffic.health.begin(
            call.server, backend.key, self._clock.monotonic(), trip.forecast_s
        )
        try:
            response = await self._upstream.post(
                backend.key, backend.url + call.target, headers=exchange.trace.to_engine(call.headers), body=body.raw,
                header_timeout_s=limits.prefill_s if is_prefill else limits.headers_s,
            )  # fmt: skip
            exchange.upstream_status = response.status
            try:
                await self._refuse_to_relay_failure(call, response, backend.key)
                with IdleWatch(response.content, limits.idle_s):
                    await use(call, response, trip)
            finally:
                response.close()  # an answer read to its end has given its connection back already
        except (AttemptFailed, StreamBroken) as failure:
            self._note_failure(call, candidate, verdict, failure)
            raise
        finally:
            verdict.end()
            active.dec()

    def _note_failure(
        self, call: Call, candidate: Candidate, verdict: Verdict, failure: AttemptFailed | StreamBroken
    ) -> None:
        """What the failure says of its engine, for the requests that come now."""
        call.exchange.story.failed(str(failure))
        now_s, status = self._clock.monotonic(), failure.status if isinstance(failure, AttemptFailed) else 0
        if isinstance(failure, StreamBroken) or failure.unreached:
            candidate.load.suspect_until_s = now_s + self._settings.upstream.suspect_s
        if status == 429:
            self._traffic.told_to_wait(failure.engine, call.rejection[0] if call.rejection else [], now_s)
        elif status in DEFERRED_STATUSES:
            call.suspected.append(verdict)
        elif not 400 <= status < 500:
            verdict.failed(now_s)

    async def _refuse_to_relay_failure(self, call: Call, response: aiohttp.ClientResponse, engine: str) -> None:
        # A declared adapter that this engine has just unloaded is another's by now.
        is_elsewhere = (
            response.status == 404 and call.view.is_adapter and call.view.upstream_model in call.server.adapters
        )
        if response.status not in RETRIED_STATUSES and not is_elsewhere:
            return
        detail = await self._error_body(response)
        if response.status == 429:
            call.rejection = (list(response.raw_headers), detail)
        text = detail.decode("utf-8", "replace").strip()
        raise AttemptFailed(engine, f"answered {response.status}: {text[:512]}", status=response.status)

    async def _error_body(self, response: aiohttp.ClientResponse) -> bytes:
        """Its first bytes; what does not come soon is not waited for."""
        limits, body = self._settings.upstream, bytearray()
        try:
            async with asyncio.timeout(limits.connect_timeout_s):
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) >= limits.error_body_bytes_max:
                        break
        except (aiohttp.ClientError, OSError):  # TimeoutError is an OSError
            pass
        return bytes(body[: limits.error_body_bytes_max])
