"""Settings of what can be seen of the ingress from outside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import urlsplit

ExplainScope = Literal["off", "inference", "metrics", "admin"]


@dataclass(frozen=True)
class TracingSettings:
    """OpenTelemetry spans, sent to a collector by OTLP over HTTP; needs the extra `otel`."""

    endpoint: str = ""
    """Where spans are posted, such as `http://collector:4318/v1/traces`; empty: no spans, at no cost."""
    sample: float = 1.0
    """Share of the traces begun here that are kept, 0 to 1; what a client's `traceparent` says of its own goes first."""
    service_name: str = "hekla-ingress"
    """The resource's `service.name`."""
    export_interval_s: float = 1.0
    """How late a span may reach the collector."""
    pending_max: int = 8192
    """Spans waiting for the collector; beyond it they are dropped: a slow collector must cost memory, not requests."""
    timeout_s: float = 5.0
    """Longest wait for the collector."""

    def __post_init__(self) -> None:
        if self.endpoint and urlsplit(self.endpoint).scheme not in ("http", "https"):
            raise ValueError(f"observe.tracing.endpoint is {self.endpoint!r}; allowed: an http or https URL, or empty")
        if not 0 <= self.sample <= 1:
            raise ValueError(f"observe.tracing.sample is {self.sample}; allowed: 0 to 1")
        for name in ("export_interval_s", "timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"observe.tracing.{name} is {getattr(self, name)}; allowed: above 0")
        if self.pending_max < 1:
            raise ValueError(f"observe.tracing.pending_max is {self.pending_max}; allowed: 1 or more")


@dataclass(frozen=True)
class ObserveSettings:
    explain_scope: ExplainScope = "metrics"
    """What a caller's key must allow for `x-hekla-explain` to be honoured: engines' names and loads are nobody else's
    business. While callers are not asked for keys everyone has every scope. `off`: never."""
    explain_bytes_max: int = 8192
    """Largest explanation in a header: what most proxies allow for all headers together."""
    decisions_max: int = 256
    """Latest decisions kept for `/debug/decisions`; with a thousand engines each holds about 0.2 MB of numbers. 0: none."""
    tracing: TracingSettings = field(default_factory=TracingSettings)

    def __post_init__(self) -> None:
        allowed = get_args(ExplainScope)
        if self.explain_scope not in allowed:
            raise ValueError(f"observe.explain_scope is {self.explain_scope!r}; allowed: {', '.join(allowed)}")
        if not 512 <= self.explain_bytes_max <= 16384:
            raise ValueError(f"observe.explain_bytes_max is {self.explain_bytes_max}; allowed: 512 to 16384")
        if self.decisions_max < 0:
            raise ValueError(f"observe.decisions_max is {self.decisions_max}; allowed: 0 or more")
