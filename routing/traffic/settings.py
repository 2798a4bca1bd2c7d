"""Settings of the traffic policies; a ModelServer's `trafficPolicy` goes before the ones marked (P)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RetryBudgetSettings:
    """How many further tries there may be, per ModelServer and ingress replica."""

    ratio: float = 0.2
    """Further tries per request: enough for one bad engine among five, too few to turn a brown-out into an outage."""
    floor_per_s: float = 10.0
    """Tries a second on top: where requests are few, a share of them is nothing."""
    burst: float = 200.0
    """Tries saved up at most, and at the start: the streams of one engine that dies are tried again at once."""
    interval_max_s: float = 5.0
    """Longest wait between two tries; it doubles from the interval with each."""
    retry_after_max_s: float = 30.0
    """An engine's own `Retry-After` is honoured up to this: a mistaken one must not empty a pool."""

    def __post_init__(self) -> None:
        _within("traffic.retries.ratio", self.ratio, 0, 1)
        _within("traffic.retries.floor_per_s", self.floor_per_s, 0)
        _within("traffic.retries.burst", self.burst, 1)
        _within("traffic.retries.interval_max_s", self.interval_max_s, 0)
        _within("traffic.retries.retry_after_max_s", self.retry_after_max_s, 0)


@dataclass(frozen=True)
class TimeoutSettings:
    """How long an engine and a request may take; 0: no limit."""

    idle_s: float = 600.0
    """(P) Longest silence of an engine whose headers have come: a queue or a preemption takes minutes at worst, while an engine
    that hangs or a link that is cut would hold its client for ever."""
    total_s: float = 21600.0
    """(P) From the request's arrival to its answer's end: 128 k tokens at six a second."""
    prefill_s: float = 0.0
    """Longest wait for a prefill engine's answer; 0: the ModelServer's `timeout`. A long prompt takes minutes."""

    def __post_init__(self) -> None:
        for name in ("idle_s", "total_s", "prefill_s"):
            _within(f"traffic.timeouts.{name}", getattr(self, name), 0)


@dataclass(frozen=True)
class EjectionSettings:
    """When an engine that fails requests gets none for a while (P: `trafficPolicy.outlierDetection`)."""

    enabled: bool = True
    """On: an engine that answers its health check and fails every request is the most attractive one by load."""
    consecutive_failures: int = 5
    """In a row; 5 is Envoy's and Istio's number. 0: never by this."""
    failure_percent: float = 50.0
    """Of an engine's requests within `window_s`; half of them is no accident. 0: never by this."""
    requests_min: int = 20
    """Fewer within the window say nothing about a share."""
    window_s: float = 30.0
    """Long enough for `requests_min` at one request a second and a bit."""
    base_s: float = 10.0
    """First ejection: an engine's restart of a wedged step; it doubles with each that follows."""
    max_s: float = 300.0
    """Longest ejection."""
    pool_percent_max: float = 50.0
    """Share of a pool that may be out at once. Never all: when everything fails, the reason is elsewhere, and an engine
    that fails some requests serves others."""
    probes_max: int = 2
    """Requests at once to an engine that is tried again after its ejection."""
    probes_needed: int = 3
    """Successes in a row that bring it back."""
    latency_factor: float = 0.0
    """Ejects an engine whose time to first token, over its forecast where there is one, is this many times its siblings'
    median. 0: off, for a slow engine is still of use, and the scheduler learns its speed."""
    latency_samples_min: int = 30
    """First tokens of an engine before its latency is judged."""

    def __post_init__(self) -> None:
        _within("traffic.ejection.consecutive_failures", self.consecutive_failures, 0)
        _within("traffic.ejection.failure_percent", self.failure_percent, 0, 100)
        _within("traffic.ejection.requests_min", self.requests_min, 1)
        _within("traffic.ejection.window_s", self.window_s, 0.1)
        _within("traffic.ejection.base_s", self.base_s, 0.001)
        _within("traffic.ejection.max_s", self.max_s, self.base_s)
        _within("traffic.ejection.pool_percent_max", self.pool_percent_max, 0, 99)
        _within("traffic.ejection.probes_max", self.probes_max, 1)
        _within("traffic.ejection.probes_needed", self.probes_needed, 1)
        _within("traffic.ejection.latency_samples_min", self.latency_samples_min, 1)
        if self.latency_factor and self.latency_factor < 1.5:
            raise ValueError(f"traffic.ejection.latency_factor is {self.latency_factor}; allowed: 0, or 1.5 and more")


@dataclass(frozen=True)
class SlowStartSettings:
    """A new engine's share of the traffic grows over a window."""

    window_s: float = 30.0
    """An engine compiles its kernels and fills its cache in its first half minute. 0: full share at once."""
    share_min: float = 0.1
    """The share it starts with: enough to warm it."""

    def __post_init__(self) -> None:
        _within("traffic.slow_start.window_s", self.window_s, 0)
        _within("traffic.slow_start.share_min", self.share_min, 0.001, 1)


@dataclass(frozen=True)
class StickySettings:
    """Sessions: whose requests prefer the engine of the ones before."""

    headers: tuple[str, ...] = ("x-session-id",)
    """Headers that name a session where a route says nothing; such a session is a hint to scorers, queue and canary only."""
    sessions_max: int = 100_000
    """Remembered by one replica: about 30 MB; beyond it the least recently used is forgotten."""
    load_factor: float = 1.5
    """A session's home gives way above this many times its pool's mean of requests in flight."""
    requests_free: int = 8
    """A home with fewer requests in flight never gives way."""

    def __post_init__(self) -> None:
        _within("traffic.sticky.sessions_max", self.sessions_max, 1)
        _within("traffic.sticky.load_factor", self.load_factor, 1)
        _within("traffic.sticky.requests_free", self.requests_free, 0)


@dataclass(frozen=True)
class MirrorSettings:
    """Copies of requests for a shadow target."""

    concurrency_max: int = 64
    """Copies under way at once; one that finds no place is dropped and counted."""
    bytes_max: int = 64 * 2**20
    """Bodies of copies held at once."""
    timeout_s: float = 300.0
    """A copy is ended after this."""

    def __post_init__(self) -> None:
        _within("traffic.mirror.concurrency_max", self.concurrency_max, 0)
        _within("traffic.mirror.bytes_max", self.bytes_max, 0)
        _within("traffic.mirror.timeout_s", self.timeout_s, 0.1)


@dataclass(frozen=True)
class FailoverSettings:
    """When a rule's `failover` targets take over."""

    when_busy: bool = False
    """Also when the first target's engines are all at their limits. Off: the second target may cost more."""


@dataclass(frozen=True)
class TrafficSettings:
    retries: RetryBudgetSettings = field(default_factory=RetryBudgetSettings)
    timeouts: TimeoutSettings = field(default_factory=TimeoutSettings)
    ejection: EjectionSettings = field(default_factory=EjectionSettings)
    slow_start: SlowStartSettings = field(default_factory=SlowStartSettings)
    sticky: StickySettings = field(default_factory=StickySettings)
    mirror: MirrorSettings = field(default_factory=MirrorSettings)
    failover: FailoverSettings = field(default_factory=FailoverSettings)


def _within(name: str, value: float, minimum: float, maximum: float | None = None) -> None:
    if value < minimum or (maximum is not None and value > maximum):
        allowed = f"{minimum:g} or more" if maximum is None else f"{minimum:g} to {maximum:g}"
        raise ValueError(f"{name} is {value}; allowed: {allowed}")
