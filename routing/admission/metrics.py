"""Metrics of admission; names, labels and buckets are Kthena's with another prefix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from prometheus_client import Counter, Gauge

from hekla.routing.admission.interface import Waiting
from hekla.routing.histogram import LoopHistogram

SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
ALL = "_all"
"""Value of `user_id`: who a user is must not become a label."""

CHILDREN_MAX = 10_000
"""Models whose counters are kept at hand."""

MakeCounter = Callable[[str, str, tuple[str, ...]], Counter]
MakeGauge = Callable[[str, str, tuple[str, ...]], Gauge]


class MakeHistogram(Protocol):
    def __call__(
        self, name: str, doc: str, labels: tuple[str, ...], buckets: tuple[float, ...] = ..., /
    ) -> LoopHistogram: ...


class AdmissionMetrics:
    """Made by `RouterMetrics` with its own makers, so that names and registry are the ingress's."""

    def __init__(self, counter: MakeCounter, gauge: MakeGauge, histogram: MakeHistogram) -> None:
        user, model = ("model", "user_id"), ("model",)
        self._size = gauge("fairness_queue_size", "Requests that wait", user)
        self._duration = histogram("fairness_queue_duration_seconds", "Waits of those that went", user, SECONDS)
        self._cancelled = counter("fairness_queue_cancelled_total", "Clients that left the queue", user)
        self._dequeued = counter("fairness_queue_dequeue_total", "Requests that went to an engine", user)
        self._inflight = gauge("fairness_queue_inflight", "Requests admitted that have not ended", model)
        self._s_size = gauge("session_boost_queue_size", "Of them, requests of a session", model)
        self._s_duration = histogram("session_boost_duration_seconds", "Waits of those that went", model, SECONDS)
        self._s_cancelled = counter("session_boost_cancelled_total", "Clients that left the queue", model)
        self._s_dequeued = counter("session_boost_dequeue_total", "Requests that went to an engine", model)
        self._s_inflight = gauge("session_boost_inflight", "Requests admitted that have not ended", model)
        self._refused = counter("admission_refused_total", "Requests that found no place", ("model", "reason"))
        self.limited = counter(
            "rate_limit_exceeded_total", "Requests above a rate limit", ("model", "limit_type", "path")
        )

        self._children: dict[str, tuple[Counter, Gauge]] = {}

    def waits(self, model: str, item: Waiting, count: int) -> None:
        """It begins to wait (1), or does no longer (-1)."""
        self._size.labels(model, ALL).inc(count)
        if item.session:
            self._s_size.labels(model).inc(count)

    def cancelled(self, model: str, item: Waiting) -> None:
        self._cancelled.labels(model, ALL).inc()
        if item.session:
            self._s_cancelled.labels(model).inc()

    def admitted(self, model: str, item: Waiting, waited_s: float) -> None:
        dequeued, inflight = self._kept(model)
        dequeued.inc()
        self._duration.at(model, ALL).observe(waited_s)
        inflight.inc()
        if item.session:
            self._s_dequeued.labels(model).inc()
            self._s_duration.at(model).observe(waited_s)
            self._s_inflight.labels(model).inc()

    def ended(self, model: str, item: Waiting) -> None:
        self._kept(model)[1].dec()
        if item.session:
            self._s_inflight.labels(model).dec()

    def _kept(self, model: str) -> tuple[Counter, Gauge]:
        """What every request touches, looked up once: `labels` takes a lock."""
        found = self._children.get(model)
        if found is None:
            if len(self._children) >= CHILDREN_MAX:
                self._children.clear()
            found = (self._dequeued.labels(model, ALL), self._inflight.labels(model))
            self._children[model] = found
        return found

    def refused(self, model: str, reason: str) -> None:
        self._refused.labels(model, reason).inc()
