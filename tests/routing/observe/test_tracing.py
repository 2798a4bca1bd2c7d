"""Spans across the ingress: by an in-memory processor, and over the wire to a collector."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from hekla.routing.config import RoutingSettings
from hekla.routing.headers import RawHeaders
from hekla.routing.observe.observer import tracer_of
from hekla.routing.observe.otel import OtelTracer
from hekla.routing.observe.settings import ObserveSettings, TracingSettings
from hekla.routing.observe.tracing import NO_TRACE, NoTracer

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def recorder(**settings: Any) -> tuple[OtelTracer, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    return OtelTracer(TracingSettings(**settings), SimpleSpanProcessor(exporter)), exporter


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def trace_id(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


def test_a_trace_continues_the_clients_and_the_engines_continues_the_span_that_asks_it() -> None:
    tracer, exporter = recorder()
    trace = tracer.begin([(b"traceparent", PARENT.encode())], "POST", "/v1/completions")
    with trace.span("engine") as span:
        span.set("hekla.engine", "e")
        trace.event("first_token")
        sent = dict(trace.to_engine([("traceparent", PARENT), ("tracestate", "x=1"), ("other", "kept")]))
    trace.end(200, "", lambda: {"hekla.tries": 1})
    spans = by_name(exporter)
    root, engine = spans["POST /v1/completions"], spans["engine"]
    assert trace_id(root) == trace_id(engine) == PARENT.split("-")[1]
    assert root.parent is not None and f"{root.parent.span_id:016x}" == PARENT.split("-")[2]
    assert engine.context is not None and sent["traceparent"].split("-")[2] == f"{engine.context.span_id:016x}"
    assert sent["other"] == "kept"
    assert [event.name for event in engine.events] == ["first_token"]
    assert root.attributes is not None and root.attributes["hekla.tries"] == 1


def test_a_part_that_fails_is_an_error_and_the_request_that_recovers_is_not() -> None:
    tracer, exporter = recorder()
    trace = tracer.begin([], "POST", "/v1/completions")
    with pytest.raises(OSError), trace.span("engine"):
        raise OSError("gone")
    trace.end(200, "", dict)
    trace.end(500, "internal", dict)  # an end is the end
    spans = by_name(exporter)
    assert spans["engine"].status.status_code is StatusCode.ERROR
    assert spans["POST /v1/completions"].status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("headers", [[(b"traceparent", b"nonsense")], [(b"traceparent", b"\xff")], []])
def test_a_traceparent_that_makes_no_sense_begins_a_trace_of_its_own(headers: RawHeaders) -> None:
    tracer, exporter = recorder()
    tracer.begin(headers, "POST", "/").end(200, "", dict)
    (span,) = exporter.get_finished_spans()
    assert span.parent is None


def test_what_is_not_sampled_is_not_recorded_but_the_client_may_ask_for_it() -> None:
    tracer, exporter = recorder(sample=0.0)
    tracer.begin([], "POST", "/").end(200, "", dict)
    assert not exporter.get_finished_spans()
    tracer.begin([(b"traceparent", PARENT.encode())], "POST", "/").end(200, "", dict)
    assert len(exporter.get_finished_spans()) == 1


def test_without_an_endpoint_nothing_is_recorded_and_nothing_changed() -> None:
    trace = tracer_of(ObserveSettings()).begin([(b"traceparent", PARENT.encode())], "POST", "/")
    assert trace is NO_TRACE and isinstance(tracer_of(ObserveSettings()), NoTracer)
    headers = [("traceparent", PARENT)]
    assert trace.to_engine(headers) is headers


async def test_spans_of_a_request_reach_a_collector_over_otlp_and_the_engine_hears_the_trace(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def collects(answer: Any) -> None:
        await answer.reply(200, b"", connection="close")

    async def fails(answer: Any) -> None:
        await answer.reply(503, {"error": "no"})

    collector, broken, engine = await start_backend(collects), await start_backend(fails), await start_backend()
    tracing = TracingSettings(endpoint=collector.url + "/v1/traces", export_interval_s=0.05)
    settings = RoutingSettings(observe=ObserveSettings(tracing=tracing))
    site = await start_site(*kit.objects(broken, engine), settings=settings)
    while not broken.requests:
        await site.client.post(
            "/v1/chat/completions", json={"model": "m", "messages": [], "stream": True}, headers={"traceparent": PARENT}
        )

    def spans() -> list[Any]:
        requests = [ExportTraceServiceRequest.FromString(answer.body) for answer in collector.requests]
        scopes = [s for r in requests for resource in r.resource_spans for s in resource.scope_spans]
        return [span for scope in scopes for span in scope.spans]

    await kit.until(lambda: any(len(span.events) and span.name == "engine" for span in spans()), "the collector heard")
    await kit.until(lambda: {"POST /v1/chat/completions"} <= {span.name for span in spans()}, "the request is over")
    names = {span.name for span in spans()}
    assert {"identity", "queue", "schedule", "engine"} <= names
    assert {span.trace_id.hex() for span in spans()} == {PARENT.split("-")[1]}
    asked = {answer.headers["traceparent"].split("-")[2] for answer in (*engine.requests, *broken.requests)}
    await kit.until(lambda: asked <= {s.span_id.hex() for s in spans() if s.name == "engine"}, "each is a span")
    failed = [span for span in spans() if span.name == "engine" and span.status.code == 2]
    assert failed and "503" in failed[0].status.message
    answered = [span for span in spans() if span.name == "engine" and span.status.code != 2]
    assert any(event.name == "first_token" for span in answered for event in span.events)


async def test_a_collector_that_is_away_costs_no_request_anything(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    tracing = TracingSettings(endpoint="http://127.0.0.1:9/v1/traces", timeout_s=0.2, pending_max=4)
    site = await start_site(
        *kit.objects(await start_backend()), settings=RoutingSettings(observe=ObserveSettings(tracing=tracing))
    )
    assert [(await site.post())[0] for _ in range(20)] == [200] * 20
