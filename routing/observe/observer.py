"""Watches requests pass: their spans, their explanations, and the latest decisions."""

from __future__ import annotations

import asyncio

from hekla.platform.base.clock import Clock
from hekla.routing.exchange import Exchange
from hekla.routing.headers import RawHeaders
from hekla.routing.metrics import backend_labels
from hekla.routing.observe.decisions import Decisions
from hekla.routing.observe.explanation import HEADER, IN_HEADER, asked_for, explanation, header_value
from hekla.routing.observe.settings import ObserveSettings
from hekla.routing.observe.story import Explainable
from hekla.routing.observe.tracing import NO_TRACE, NoTracer, Tracer, Value


def tracer_of(settings: ObserveSettings) -> Tracer:
    """OpenTelemetry's where an endpoint is configured. Raises ValueError when the extra is not installed."""
    if not settings.tracing.endpoint:
        return NoTracer()
    try:
        from hekla.routing.observe.otel import OtelTracer, otlp_processor
    except ImportError as error:
        message = f"observe.tracing.endpoint is set, but OpenTelemetry is missing: install hekla[otel] ({error})"
        raise ValueError(message) from error
    return OtelTracer(settings.tracing, otlp_processor(settings.tracing))


class Observer:
    """`begin` and `end` frame a request; `asked` says what its client wants to know."""

    def __init__(self, settings: ObserveSettings, tracer: Tracer, clock: Clock) -> None:
        self._settings, self._tracer, self._clock = settings, tracer, clock
        self.decisions = Decisions(settings.decisions_max)

    def use(self, settings: ObserveSettings) -> None:
        self._settings = settings

    def begin(self, exchange: Exchange) -> None:
        exchange.trace = self._tracer.begin(exchange.raw_headers, exchange.method, exchange.path)
        if self._settings.decisions_max:
            exchange.story.keep = lambda engine, plan: self._keep(exchange, engine, plan)

    def asked(self, exchange: Exchange) -> str:
        """`explanation.IN_HEADER`, `DRY_RUN` or empty; the header is then added to whatever is answered."""
        asked = asked_for(exchange, self._settings.explain_scope)
        if asked == IN_HEADER:
            exchange.late_headers = lambda: self._header(exchange)
        return asked

    def end(self, exchange: Exchange) -> None:
        if exchange.trace is not NO_TRACE:
            exchange.trace.end(exchange.status, exchange.error_kind, lambda: attributes(exchange))
        # Both refer back to the exchange, which would then wait for the garbage collector with all it refers to.
        exchange.story.keep = exchange.late_headers = None

    async def stop(self) -> None:
        await asyncio.to_thread(self._tracer.stop)

    def _keep(self, exchange: Exchange, engine: str, plan: Explainable) -> int:
        server = exchange.match.server if exchange.match is not None else None
        names = (exchange.model, exchange.caller.tenant, server.name if server is not None else "")
        return self.decisions.keep(self._clock.now(), exchange.request_id, names, engine, plan)

    def _header(self, exchange: Exchange) -> RawHeaders:
        told = explanation(exchange, self._clock.monotonic())
        return [(HEADER, header_value(told, self._settings.explain_bytes_max))]


def attributes(exchange: Exchange) -> dict[str, Value]:
    """Of the request's own span, by OpenTelemetry's names for generative AI where there are some."""
    route, kind, name, upstream_model = backend_labels(exchange)
    told: dict[str, Value] = {
        "gen_ai.request.model": exchange.model,
        "gen_ai.response.model": upstream_model,
        "hekla.request_id": exchange.request_id,
        "hekla.route": route,
        "hekla.backend_type": kind,
        "hekla.backend": name,
        "hekla.engine": exchange.backend,
        "hekla.tries": exchange.upstream_attempts,
        "hekla.continuations": exchange.story.continuations,
        "hekla.decision": exchange.story.decision,
    }
    if exchange.caller.tenant:
        told["hekla.tenant"] = exchange.caller.tenant
    if exchange.usage is not None:
        told["gen_ai.usage.input_tokens"] = exchange.usage.prompt_tokens
        told["gen_ai.usage.output_tokens"] = exchange.usage.completion_tokens
        told["hekla.cached_tokens"] = exchange.usage.cached_tokens
    return told
