"""Prometheus metrics of the scheduler, read when they are asked for where they are not counted."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from hekla.routing.histogram import LoopHistogram
from hekla.routing.scheduling.rates import RateBook

PREFIX = "hekla_router_"
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)


class SchedulingMetrics(Collector):
    def __init__(self, rates: RateBook, registry: CollectorRegistry) -> None:
        self._rates = rates
        self.precision = LoopHistogram(
            PREFIX + "prefix_precision", "How well cached tokens were predicted: 1 exactly, 0 as wrong as can be",
            ("model",), bounds=SHARES, registry=registry,
        )  # fmt: skip
        self.plugin_errors = Counter(
            PREFIX + "scheduler_plugin_errors", "Decisions a plugin failed in", ("plugin",), registry=registry
        )
        self.reloads = Counter(
            PREFIX + "scheduler_config_reloads", "Changes of the configuration file", ("outcome",), registry=registry
        )
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        errors = GaugeMetricFamily(
            PREFIX + "forecast_error_ratio",
            "Mean absolute relative error of late forecasts, by kind of engine",
            labels=("engine_kind", "quantity"),
        )
        for kind, error in self._rates.errors().items():
            errors.add_metric((kind, "ttft"), error.ttft)
            errors.add_metric((kind, "tpot"), error.tpot)
        yield errors
