"""Counters of the traffic policies."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter, Gauge

MakeCounter = Callable[[str, str, tuple[str, ...]], Counter]
MakeGauge = Callable[[str, str, tuple[str, ...]], Gauge]


class TrafficMetrics:
    """Made by `RouterMetrics` with its own makers, so that names and registry are the ingress's."""

    def __init__(self, counter: MakeCounter, gauge: MakeGauge) -> None:
        self.retries_denied = counter(
            "retries_denied_total", "Further tries that the retry budget did not allow", ("model_server",)
        )
        self.engine_health = counter(
            "engine_health_total", "Engines ejected, tried again, recovered", ("model_server", "event")
        )
        self.sticky = counter(
            "sticky_requests_total", "Requests of sticky sessions, by whether they met their engine",
            ("model_route", "outcome"),
        )  # fmt: skip
        self.failovers = counter(
            "failovers_total", "Requests another target of the rule took over", ("model_route", "target", "reason")
        )
        self.mirrored = counter(
            "mirrored_requests_total", "Copies for a shadow target", ("model_route", "model_server", "outcome")
        )
        self.mirroring = gauge("mirrored_requests_active", "Copies under way", ())
        self.deadlines = counter("deadlines_exceeded_total", "Requests ended by their total timeout", ("model",))
