"""Prometheus metrics of the prefix indexes, read where they are counted anyway."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hekla.routing.histogram import LoopHistogram
from hekla.routing.prefix.service import PrefixService

PREFIX = "hekla_router_"
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)


class PrefixMetrics(Collector):
    """Registers itself, and a histogram of the tokeniser's seconds."""

    def __init__(self, service: PrefixService, registry: CollectorRegistry) -> None:
        self._service = service
        seconds = LoopHistogram(
            PREFIX + "tokenise_seconds", "What tokenisation added to a request", (), bounds=SECONDS, registry=registry
        )
        service.tokeniser.seconds = seconds.at().observe
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        service, stream = self._service, self._service.subscriber.counts
        blocks, prompts = service.exact.counts, service.tokeniser.counts
        yield _gauge(
            "prefix_entries", "Blocks remembered", "index",
            {"approximate": service.approximate.entries, "exact": service.exact.entries},
        )  # fmt: skip
        yield _counter("prefix_evictions", "Blocks that made room for others", "index", {
            "approximate": service.approximate.evicted, "exact": blocks.removed,
        })  # fmt: skip
        yield _counter("kv_event_blocks", "Blocks told by engines", "outcome", {
            "stored": blocks.stored, "removed": blocks.removed, "orphan": blocks.orphans,
            "passed_over": blocks.passed_over, "refused": blocks.refused,
        })  # fmt: skip
        yield _counter("kv_event_streams", "What happened to engines' event streams", "outcome", {
            "gap": stream.gaps, "replay": stream.replays, "lost": stream.lost, "restart": stream.restarts,
            "malformed": stream.malformed,
        })  # fmt: skip
        yield _counter("kv_event_batches", "Batches of events taken in", "", {"": stream.batches})
        yield _gauge(
            "kv_event_waiting_batches", "Batches heard that wait for the index", "", {"": service.subscriber.waiting}
        )
        yield _gauge("kv_event_engines", "Engines whose whole cache is known", "", {"": len(service.exact.complete)})
        yield _counter("tokenised_prompts", "Prompts by where their tokens came from", "source", {
            "given": prompts.given, "local": prompts.local, "engine": prompts.engine, "late": prompts.late,
            "failed": prompts.failed, "overloaded": prompts.overloaded,
        })  # fmt: skip
        yield _counter(
            "tokenise_mismatches", "Prompts an engine tokenised in another way", "", {"": prompts.mismatched}
        )
        yield _counter("tokenise_cache", "Pieces of prompts looked up", "outcome", {
            "hit": service.tokeniser.cache_hits, "miss": service.tokeniser.cache_misses,
        })  # fmt: skip


def _counter(name: str, doc: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, doc, labels=[label] if label else [])
    for value, count in values.items():
        family.add_metric([value] if label else [], count)
    return family


def _gauge(name: str, doc: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, doc, labels=[label] if label else [])
    for value, count in values.items():
        family.add_metric([value] if label else [], count)
    return family
