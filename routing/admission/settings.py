"""Settings of admission: the queue's bounds, what service costs, and what a good answer is."""

from __future__ import annotations

from dataclasses import dataclass, field

from hekla.routing.setting_bounds import at_least


@dataclass(frozen=True)
class Objective:
    """What the chosen engine must still promise for a request to be admitted at once; 0: no demand."""

    ttft_s: float = 0.0
    """Longest forecast time from admission to the first token."""
    step_s: float = 0.0
    """Longest forecast time between two tokens, with a tenth of margin (`STEP_MARGIN`)."""
    kv_share: float = 0.97
    """Largest forecast share of the engine's KV memory: above it requests are preempted and prefilled again."""
    model: str = "*"
    """Names of models it is for; `*` and `?` are wildcards. The first objective that fits decides."""
    priority_min: int | None = None
    """Only for requests of this class or a higher one; None: all."""

    def __post_init__(self) -> None:
        for name in ("ttft_s", "step_s", "kv_share"):
            at_least(f"admission.objectives[].{name}", getattr(self, name), 0)


@dataclass(frozen=True)
class BoostSettings:
    """Follow-ups of sessions that were answered lately go first."""

    enabled: bool = True
    """On: it only reorders what waits anyway, within the fair share."""
    header: str = "x-session-id"
    """The request header that names the session."""
    sessions_max: int = 4096
    """Completed sessions remembered for each model; the least recently completed is forgotten."""
    grace_s: float = 0.0
    """With a concurrency limit: how long a session's slot is kept for its follow-up. 0: no slot idles."""

    def __post_init__(self) -> None:
        at_least("admission.boost.sessions_max", self.sessions_max, 1)
        at_least("admission.boost.grace_s", self.grace_s, 0)


@dataclass(frozen=True)
class AdmissionSettings:
    """The queue in front of each model."""

    enabled: bool = True
    """On: without contention it costs microseconds, with it the alternative is a queue inside the engines."""
    queue_max: int = 1024
    """Requests that may wait for one model in one replica."""
    tenant_queue_max: int = 512
    """Of them, requests of one tenant and class."""
    queue_bytes_max: int = 256 * 2**20
    """Bytes of bodies that may wait for one model."""
    timeout_s: float = 60.0
    """Longest wait; then 429. A minute is what clients' libraries grant, and the reference's default."""
    poll_s: float = 0.05
    """How often a queue is looked at while nothing ends: what else frees an engine is other replicas' doing."""
    input_weight: float = 1.0
    """What one uncached prompt token costs in service."""
    output_weight: float = 2.0
    """What one generated token costs: VTC's weights, and the price ratio of most providers' lists."""
    quantum_requests: float = 4.0
    """How far, in mean requests, a tenant may run ahead of the least served for the sake of locality. 0: never."""
    scan_max: int = 64
    """Heads compared for locality at each choice."""
    tries_max: int = 4
    """Requests the scheduler is asked about in vain before the queue waits for the next change."""
    bypass_max: int = 32
    """Requests that may overtake one that does not fit before the engine it waits for is kept free for it."""
    tenants_max: int = 4096
    """Tenants whose service is remembered for each model and class."""
    concurrent_max: int = 0
    """Requests of one model in flight from this replica; 0: forecasts decide alone."""
    per_engine_max: int = 0
    """The same for each ready engine of the model; 0: forecasts decide alone."""
    retry_after_max_s: int = 60
    """Longest `Retry-After`: a client should look again after a queue's timeout."""
    objectives: tuple[Objective, ...] = (Objective(ttft_s=30.0),)
    """Generous: an engine that would keep the first token waiting for half a minute gets no more work."""
    boost: BoostSettings = field(default_factory=BoostSettings)

    def __post_init__(self) -> None:
        for name in ("queue_max", "tenant_queue_max", "queue_bytes_max", "scan_max", "tries_max", "tenants_max"):
            at_least(f"admission.{name}", getattr(self, name), 1)
        for name in ("input_weight", "output_weight", "quantum_requests", "bypass_max", "concurrent_max"):
            at_least(f"admission.{name}", getattr(self, name), 0)
        at_least("admission.per_engine_max", self.per_engine_max, 0)
        at_least("admission.retry_after_max_s", self.retry_after_max_s, 1)
        for name in ("timeout_s", "poll_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"admission.{name} is {getattr(self, name)}; allowed: above 0")

    def cost(self, uncached_tokens: int, output_tokens: int) -> float:
        """Service in weighted tokens."""
        return self.input_weight * uncached_tokens + self.output_weight * output_tokens
