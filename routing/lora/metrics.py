"""Metrics of requests that wait for their adapter."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60)


class LoraMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._waits = Histogram(
            "hekla_router_adapter_wait_seconds", "Time that requests waited for their LoRA adapter to be loaded.",
            ["model"], buckets=BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._refused = Counter(
            "hekla_router_adapter_not_loaded_total", "Requests refused because their LoRA adapter was not loaded in time.",
            ["model"], registry=registry,
        )  # fmt: skip

    def waited(self, model: str, seconds: float) -> None:
        self._waits.labels(model).observe(seconds)

    def refused(self, model: str) -> None:
        self._refused.labels(model).inc()
