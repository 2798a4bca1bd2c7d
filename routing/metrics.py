"""Prometheus metrics of one ingress replica, all named `hekla_router_…`; labels and buckets are Kthena's.

Looking a labelled child up in prometheus_client takes a lock and a tuple of strings; the hot path keeps the children.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from hekla.routing.admission.metrics import AdmissionMetrics
from hekla.routing.exchange import Exchange
from hekla.routing.histogram import LoopHistogram
from hekla.routing.traffic.metrics import TrafficMetrics

PREFIX = "hekla_router_"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
PLUGIN_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5)
UNKNOWN = "unknown"
CHILDREN_MAX = 20_000
"""Kept children; label values are bounded by the manifests, so this is only a belt."""

_BACKEND = ("model_route", "backend_type", "backend_name", "upstream_model")
Meter = Callable[[str, str, float], None]
Wrapped = TypeVar("Wrapped", bound=MetricWrapperBase)


class RouterMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        c, h, g = self._counter, self._histogram, self._gauge
        request = ("model", "path", "status_code")
        self.requests = c("requests_total", "Requests answered", (*request, "error_type", *_BACKEND))
        self.duration = h("request_duration_seconds", "From request to the answer's end", (*request, *_BACKEND))
        self.prefill = h("request_prefill_duration_seconds", "Upstream, until the first byte of the answer", request)
        self.decode = h("request_decode_duration_seconds", "Upstream, from the first byte to the last", request)
        self.prefill_decisions = c(
            "prefill_decisions_total",
            "Where prompts were computed, and why",
            ("model", "model_server", "way", "reason"),
        )
        self.tokens = c("tokens_total", "Tokens by the engine's count", ("model", "path", "token_type", *_BACKEND))
        self.retries = c("retries_total", "Further tries on an engine", ("model", "model_server", "reason"))
        self.continuations = c(
            "continuations_total", "Broken streams another engine went on with", ("model", "model_server", "way")
        )
        self.lost_streams = c(
            "lost_streams_total", "Answers cut off because the engine died", ("model", "model_server")
        )
        self.active = g("active_requests", "Requests being served", ())
        self.downstream = g("active_downstream_requests", "Requests being served", ("model",))
        self.upstream = g("active_upstream_requests", "Requests on engines", ("model_server", *_BACKEND))
        self.plugin = h(
            "scheduler_plugin_duration_seconds", "One plugin's work", ("model", "plugin", "type"), PLUGIN_SECONDS
        )
        self.gossip = c("gossip_datagrams_total", "Load datagrams", ("direction", "outcome"))
        self.scrapes = c("engine_scrapes_total", "Questions for the engines' own metrics", ("outcome",))
        self.table_synced = g("table_synced", "1 once routes, servers and engines have been listed", ())
        self.log_dropped = c("access_log_dropped_lines_total", "Access log lines dropped behind a slow output", ())
        self.traffic = TrafficMetrics(self._counter, self._gauge)
        self.admission = AdmissionMetrics(self._counter, self._gauge, self._histogram)
        self._children: dict[tuple[MetricWrapperBase, tuple[str, ...]], MetricWrapperBase] = {}
        self._meters: dict[str, Meter] = {}
        self._dropped_before = 0

    def child(self, metric: Wrapped, *labels: str) -> Wrapped:
        """The metric with these label values."""
        found = self._children.get((metric, labels))
        if found is None:
            if len(self._children) >= CHILDREN_MAX:
                self._children.clear()
            found = self._children[(metric, labels)] = metric.labels(*labels)
        return found  # type: ignore[return-value]  # a child has its metric's class

    def plugin_meter(self, model: str) -> Meter:
        """Records plugin durations of one model."""
        meter = self._meters.get(model)
        if meter is None:

            def meter(plugin: str, kind: str, seconds: float) -> None:
                self.plugin.at(model, plugin, kind).observe(seconds)

            if len(self._meters) < CHILDREN_MAX:
                self._meters[model] = meter
        return meter

    def finished(self, exchange: Exchange, model: str, now_s: float) -> None:
        """Record an exchange that is over. `model` is a name of the table, or `unknown`."""
        status, path = str(exchange.status), exchange.path_label
        backend = backend_labels(exchange)
        self.child(self.requests, model, path, status, exchange.error_kind, *backend).inc()
        self.duration.at(model, path, status, *backend).observe(now_s - exchange.started_s)
        started, first = exchange.upstream_started_s, exchange.first_byte_s
        if started is not None and first is not None:
            # With separate engines the prefill is its own request; else it is what comes before the first byte.
            prefill_s = exchange.prefill_s if exchange.prefill_s is not None else first - started
            self.prefill.at(model, path, status).observe(prefill_s)
            self.decode.at(model, path, status).observe((exchange.upstream_ended_s or now_s) - first)
        if exchange.usage is not None:
            used = exchange.usage
            for kind, count in (("input", used.prompt_tokens), ("output", used.completion_tokens)):
                self.child(self.tokens, model, path, kind, *backend).inc(count)
            if used.cached_tokens:
                self.child(self.tokens, model, path, "cached", *backend).inc(used.cached_tokens)

    def log_dropped_lines(self, total: int) -> None:
        """Tell how many access log lines have been dropped so far."""
        self.log_dropped.inc(total - self._dropped_before)
        self._dropped_before = total

    def render(self) -> bytes:
        return generate_latest(self.registry)

    def names(self) -> list[str]:
        """Every metric's name as Prometheus shows it."""
        return sorted(
            family.name + ("_total" if family.type == "counter" else "") for family in self.registry.collect()
        )

    def _counter(self, name: str, doc: str, labels: tuple[str, ...]) -> Counter:
        return Counter(PREFIX + name, doc, labels, registry=self.registry)

    def _gauge(self, name: str, doc: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(PREFIX + name, doc, labels, registry=self.registry)

    def _histogram(
        self, name: str, doc: str, labels: tuple[str, ...], buckets: tuple[float, ...] = SECONDS
    ) -> LoopHistogram:
        return LoopHistogram(PREFIX + name, doc, labels, bounds=buckets, registry=self.registry)


def backend_labels(exchange: Exchange) -> tuple[str, str, str, str]:
    """model_route, backend_type, backend_name, upstream_model."""
    match = exchange.match
    if match is None:
        return ("", "none" if not exchange.model else "unresolved", "", "")
    name = "/".join(match.route.server_key(match.target))
    kind = "external_provider" if match.target.external else "model_server"
    upstream_model = exchange.upstream_model or match.upstream_model or (exchange.model if match.server else "")
    return (match.route.key, kind if match.server or match.target.external else "unresolved", name, upstream_model)
