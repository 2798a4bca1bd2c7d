"""Tries engines until one answers, and relays its bytes.

A try may be repeated on another engine as long as nothing has reached the client: the connection failed, the headers
came too late, or the answer was 429 or 5xx. A 4xx is the client's to see and is never repeated. Once bytes have
reached the client and the engine dies, `hekla.routing.continuation` has another engine go on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp

from hekla.platform.base.clock import Clock
from hekla.routing.backend import ModelServer, RetryPolicy, ServerKey
from hekla.routing.body import Body
from hekla.routing.call import Call
from hekla.routing.config import RoutingSettings
from hekla.routing.connectors.catalog import CONNECTORS
from hekla.routing.continuation.carrier import Continuation
from hekla.routing.continuation.decision import CONTINUED_PATHS
from hekla.routing.continuation.record import Record
from hekla.routing.disaggregation import AllTried, NothingReady, Plan, Planner
from hekla.routing.exchange import Exchange
from hekla.routing.headers import to_client
from hekla.routing.load import LoadBook, Ticket
from hekla.routing.metrics import RouterMetrics, backend_labels
from hekla.routing.refusal import Refusal
from hekla.routing.relay import Relay
from hekla.routing.scheduling.interface import Busy, Candidate
from hekla.routing.upstream import AttemptFailed, StreamBroken, Upstream
from hekla.routing.usage import EventRelay
from hekla.routing.view import LazyView

RETRIED_STATUSES = frozenset({429, 500, 502, 503, 504})
"""Another engine may do better. 501 and 505 are about the request, not the engine's state."""


class Proxy:
    def __init__(
        self, settings: RoutingSettings, upstream: Upstream, planner: Planner, *, loads: LoadBook,
        metrics: RouterMetrics, clock: Clock, server_now: Callable[[ServerKey], ModelServer | None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._settings, self._upstream, self._planner = settings, upstream, planner
        self._loads, self._metrics, self._clock = loads, metrics, clock
        self._relay = Relay(metrics, clock)
        self._continuation = Continuation(
            settings.continuation, upstream, plan=self._plan, attempt=self._attempt, server_now=server_now,
            metrics=metrics, clock=clock,
        )  # fmt: skip

    async def serve(
        self, exchange: Exchange, server: ModelServer, view: LazyView, *, hide_usage: bool, hide_ids: bool = False
    ) -> None:
        """Answers the exchange from an engine of `server`. Raises Refusal while nothing has been sent."""
        call = self._call(exchange, server, view, hide_usage=hide_usage, hide_ids=hide_ids)
        policy = server.retry or RetryPolicy(
            self._settings.upstream.retry_attempts, self._settings.upstream.retry_interval_s
        )
        last: AttemptFailed | None = None
        while exchange.upstream_attempts <= policy.attempts:
            if last is not None:
                await self._before_retry(call, last, policy)
            try:
                plan = self._plan(call)
            except AllTried:
                break
            exchange.upstream_attempts += 1
            try:
                await self._attempt(call, plan)
                return
            except AttemptFailed as failure:
                last = failure
            except StreamBroken as broken:
                await self._continuation.carry_on(call, broken)
                return
        await self._give_up(call, last)

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

    async def _give_up(self, call: Call, last: AttemptFailed | None) -> None:
        """An engine's own 429 is the client's to see; anything else becomes one 503."""
        exchange = call.exchange
        if last is not None and last.status == 429 and call.rejection is not None:
            headers, body = call.rejection
            exchange.error_kind, exchange.error_message = "proxy", last.reason
            named = to_client(headers, exchange.request_id, resized=True)
            if not any(name == b"retry-after" for name, _ in named):
                named.append((b"retry-after", str(self._settings.retry_after_s).encode()))
            await exchange.begin(429, [*named, (b"content-length", str(len(body)).encode())])
            await exchange.finish(body)
            return
        reason = "none was left to try" if last is None else f"the last: {last.reason}"
        message = f"request to all pods failed after {exchange.upstream_attempts} tries; {reason}"
        retry_after_s = self._settings.retry_after_s
        raise Refusal(503, message, kind="proxy", code="upstream_failed", retry_after_s=retry_after_s)

    def _plan(self, call: Call) -> Plan:
        view, retry_after_s = call.view, self._settings.retry_after_s
        view.now_s = self._clock.monotonic()
        meter = self._metrics.plugin_meter(view.model)
        try:
            try:
                return self._planner.plan(call.server, view, call.tried, meter)
            except AllTried:
                # A broken connection says nothing about the engine: with no other left, ask it again.
                if not call.unreached:
                    raise
                call.tried -= call.unreached
                call.unreached.clear()
                return self._planner.plan(call.server, view, call.tried, meter)
        except NothingReady:
            message = f"no ready engine for the model {view.model!r}"
            raise Refusal(
                503, message, kind="pod_discovery", code="no_ready_engine", retry_after_s=retry_after_s
            ) from None
        except Busy as busy:
            message = f"every engine of the model {view.model!r} is busy; try again later"
            raise Refusal(429, message, kind="scheduling", code="engines_busy", retry_after_s=retry_after_s) from busy

    async def _before_retry(self, call: Call, last: AttemptFailed, policy: RetryPolicy) -> None:
        reason = str(last.status) if last.status else ("unreached" if last.unreached else "timeout")
        labels = (call.view.model, call.server.name, reason)
        self._metrics.child(self._metrics.retries, *labels).inc()
        call.tried.add(last.engine)
        if last.unreached:
            call.unreached.add(last.engine)
        # Another engine need not be waited for; a manifest that names an interval is obeyed.
        if call.server.retry is not None or len(call.server.backends) <= len(call.tried):
            await self._clock.sleep(policy.interval_s)

    async def _attempt(self, call: Call, plan: Plan) -> None:
        """One try. Raises AttemptFailed while the client has got nothing."""
        exchange, body = call.exchange, call.view.body
        exchange.upstream_started_s, exchange.first_byte_s = self._clock.monotonic(), None
        if plan.prefill is None:
            with self._loads.begin(plan.server.backend.key, call.view.estimated_tokens) as ticket:
                await self._ask(call, plan.server, body, ticket, self._relay.relay)
            return
        # The decode engine is chosen now and counts now: who comes during the prefill must see it.
        with self._loads.begin(plan.server.backend.key, 0) as ticket:
            await self._pair(call, plan.prefill, plan.server, ticket)

    async def _pair(self, call: Call, prefill: Candidate, decode: Candidate, ticket: Ticket) -> None:
        """The prefill request, then the decode request under `ticket`."""
        exchange, body = call.exchange, call.view.body
        connector = CONNECTORS.get(call.server.connector)
        if connector is None:
            known = ", ".join(sorted(CONNECTORS))
            message = f"the connector {call.server.connector!r} is not supported; known: {known}"
            raise Refusal(503, message, kind="scheduling", code="connector_unsupported")
        call.prefill_answer = None
        with self._loads.begin(prefill.backend.key, call.view.estimated_tokens) as prefilling:
            await self._ask(call, prefill, connector.prefill_body(body), prefilling, self._keep_prefill)
        answer = call.prefill_answer
        if answer is None:
            return  # the prefill engine refused the request itself, and the client has its answer
        exchange.prefill_s = self._clock.monotonic() - (exchange.upstream_started_s or exchange.started_s)
        await self._ask(call, decode, connector.decode_body(body, answer), ticket, self._relay.relay)

    async def _ask(
        self, call: Call, candidate: Candidate, body: Body, ticket: Ticket,
        use: Callable[[Call, aiohttp.ClientResponse, Ticket], Awaitable[None]],
    ) -> None:  # fmt: skip
        """Sends `body` to an engine and hands its answer to `use`; `ticket` counts it as load meanwhile."""
        exchange, backend = call.exchange, candidate.backend
        active = self._metrics.child(self._metrics.upstream, call.server.name, *backend_labels(exchange))
        active.inc()
        exchange.backend, exchange.upstream_status = backend.key, 0
        try:
            response = await self._upstream.post(
                backend.key, backend.url + call.target,
                headers=call.headers, body=body.raw, header_timeout_s=call.server.timeout_s,
            )  # fmt: skip
            exchange.upstream_status = response.status
            try:
                await self._refuse_to_relay_failure(call, response, backend.key)
                await use(call, response, ticket)
            finally:
                response.close()  # an answer read to its end has given its connection back already
        except (AttemptFailed, StreamBroken) as failure:
            if isinstance(failure, StreamBroken) or failure.unreached:
                candidate.load.suspect_until_s = self._clock.monotonic() + self._settings.upstream.suspect_s
            raise
        finally:
            active.dec()

    async def _refuse_to_relay_failure(self, call: Call, response: aiohttp.ClientResponse, engine: str) -> None:
        if response.status not in RETRIED_STATUSES:
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

    async def _keep_prefill(self, call: Call, response: aiohttp.ClientResponse, ticket: Ticket) -> None:
        if response.status >= 300:
            await self._relay.relay(call, response, ticket)
            return
        limit, answer = self._settings.upstream.prefill_body_bytes_max, bytearray()
        try:
            async for chunk in response.content.iter_any():
                answer += chunk
                if len(answer) > limit:
                    raise AttemptFailed(call.exchange.backend, f"its prefill answer is larger than {limit} bytes")
        except (aiohttp.ClientError, OSError) as error:
            raise AttemptFailed(call.exchange.backend, f"broke off: {error}", unreached=True) from error
        call.prefill_answer = bytes(answer)
