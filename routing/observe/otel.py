"""Spans by OpenTelemetry. Needs the extra `otel`; imported only where an endpoint is configured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from hekla.routing.headers import RawHeaders
from hekla.routing.observe.settings import TracingSettings
from hekla.routing.observe.tracing import PROPAGATED, EngineHeaders, Trace, Value
from hekla.routing.observe.tracing import Span as OwnSpan

EXPORT_BATCH_MAX = 512
STOP_S = 5.0
_propagator = TraceContextTextMapPropagator()


def otlp_processor(settings: TracingSettings) -> SpanProcessor:
    """Posts batches from a thread of its own."""
    return BatchSpanProcessor(
        OTLPSpanExporter(endpoint=settings.endpoint, timeout=settings.timeout_s),
        max_queue_size=settings.pending_max,
        schedule_delay_millis=settings.export_interval_s * 1000,
        max_export_batch_size=min(EXPORT_BATCH_MAX, settings.pending_max),
    )


class OtelTracer:
    """Implements `hekla.routing.observe.tracing.Tracer`; `processor` gets every span that ends."""

    def __init__(self, settings: TracingSettings, processor: SpanProcessor) -> None:
        sampler = ParentBased(TraceIdRatioBased(settings.sample))
        resource = Resource.create({"service.name": settings.service_name})
        self._provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("hekla.routing")

    def begin(self, headers: RawHeaders, method: str, path: str) -> Trace:
        carrier = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in headers
            if name.lower() in (b"traceparent", b"tracestate")
        }
        parent = _propagator.extract(carrier, context=Context())
        root = self._tracer.start_span(f"{method} {path}", context=parent, kind=SpanKind.SERVER)
        root.set_attribute("http.request.method", method)
        root.set_attribute("url.path", path)
        return OtelTrace(self._tracer, root)

    def stop(self) -> None:
        self._provider.force_flush(int(STOP_S * 1000))
        self._provider.shutdown()


class OtelSpan:
    def __init__(self, span: Span) -> None:
        self._span = span

    def set(self, name: str, value: Value) -> None:
        self._span.set_attribute(name, value)

    def event(self, name: str) -> None:
        self._span.add_event(name)


class OtelTrace:
    """Implements `Trace`. Open spans are a stack of its own: a request's path is one task."""

    def __init__(self, tracer: Tracer, root: Span) -> None:
        self._tracer, self._open = tracer, [root]
        self._has_ended = False

    def span(self, name: str) -> AbstractContextManager[OwnSpan]:
        return self._span(name)

    @contextmanager
    def _span(self, name: str) -> Iterator[OwnSpan]:
        kind = SpanKind.CLIENT if name in ("engine", "prefill") else SpanKind.INTERNAL
        span = self._tracer.start_span(name, context=self._context(), kind=kind)
        self._open.append(span)
        try:
            yield OtelSpan(span)
        except BaseException as error:
            span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"[:256]))
            raise
        finally:
            self._open.remove(span)
            span.end()

    def event(self, name: str) -> None:
        self._open[-1].add_event(name)

    def to_engine(self, headers: EngineHeaders) -> EngineHeaders:
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, context=self._context())
        return [*((name, value) for name, value in headers if name.lower() not in PROPAGATED), *carrier.items()]

    def end(self, status: int, error_kind: str, attributes: Callable[[], dict[str, Value]]) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        root = self._open[0]
        if root.is_recording():
            root.set_attribute("http.response.status_code", status)
            root.set_attributes(attributes())
        if error_kind:
            root.set_attribute("error.type", error_kind)
        if status >= 500 or status == 0:
            root.set_status(Status(StatusCode.ERROR, error_kind))
        root.end()

    def _context(self) -> Context:
        return set_span_in_context(self._open[-1], Context())
