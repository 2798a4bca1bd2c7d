"""Metrics read where they are known anyway, at the moment somebody asks."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hekla.platform.base.clock import Clock
from hekla.routing.observe.parts import Parts

PREFIX = "hekla_router_"


class EngineMetrics(Collector):
    """Ready and ejected engines of each ModelServer, and settings that wait for a restart."""

    def __init__(self, registry: CollectorRegistry, parts: Parts, clock: Clock) -> None:
        self._parts, self._clock = parts, clock
        self.reloads = {"ok": 0, "refused": 0}
        registry.register(self)

    def reloaded(self, outcome: str) -> None:
        self.reloads[outcome] += 1

    def collect(self) -> Iterator[Metric]:
        ready = GaugeMetricFamily(PREFIX + "engines_ready", "Engines in the routing table", labels=["model_server"])
        ejected = GaugeMetricFamily(PREFIX + "engines_ejected", "Of them, out for failures", labels=["model_server"])
        parts, now_s = self._parts, self._clock.monotonic()
        for server in parts.table().servers.values():
            parts.traffic.health.mark(server, now_s)
            keys = [backend.key for backend in server.backends]
            ready.add_metric([server.name], len(keys))
            ejected.add_metric([server.name], sum(parts.loads.load(key).ejected for key in keys))
        yield ready
        yield ejected
        reloads = CounterMetricFamily(
            PREFIX + "settings_reloads", "Changes of routing.yaml, taken or refused", labels=["outcome"]
        )
        for outcome, count in self.reloads.items():
            reloads.add_metric([outcome], count)
        yield reloads
        waiting = GaugeMetricFamily(PREFIX + "settings_awaiting_restart", "Settings whose new value needs a restart")
        waiting.add_metric([], len(parts.awaiting_restart()))
        yield waiting
