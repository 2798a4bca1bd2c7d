"""Settings of the ingress: frozen, typed, built once; the unit is in the name, the reason for each default below it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hekla.routing.admission.settings import AdmissionSettings
from hekla.routing.continuation.settings import ContinuationSettings
from hekla.routing.external.settings import ExternalSettings
from hekla.routing.identity.settings import IdentitySettings
from hekla.routing.limits.settings import RateLimitSettings
from hekla.routing.lora.settings import LoraSettings
from hekla.routing.observe.settings import ObserveSettings
from hekla.routing.pairs.settings import DisaggregationSettings
from hekla.routing.prefix.settings import PrefixSettings
from hekla.routing.setting_bounds import at_least
from hekla.routing.traffic.settings import TrafficSettings
from hekla.routing.translation.settings import TranslationSettings


@dataclass(frozen=True)
class LimitSettings:
    """What one ingress replica accepts."""

    body_bytes_max: int = 32 * 2**20
    """Largest request body: a 128 k-token prompt is about 0.5 MB of text; the rest is room for inline images."""
    requests_in_flight_max: int = 8192
    """Requests one replica holds at once; above it answers 429. Each costs two sockets and about 100 kB."""
    engine_requests_max: int = 2048
    """Requests in flight on one engine, all ingress replicas together; twice vLLM's largest usual `max_num_seqs`."""
    engine_waiting_max: int = 10
    """Reported waiting requests from which an engine gets no more while another has fewer (the reference's `maxWaitingRequests`)."""
    body_read_timeout_s: float = 60.0
    """Longest silence while a client uploads its body: a slow client may not hold a slot for ever."""
    body_deadline_s: float = 600.0
    """Until a body is whole: the largest at half a megabit a second. A client that drips bytes may not hold a slot."""
    bodies_bytes_max: int = 2 * 2**30
    """Bodies one replica holds at once, over all requests; above it answers 429 before it runs out of memory."""
    event_bytes_max: int = 2**20
    """Longest SSE event held back until it is whole; a longer one is relayed in pieces."""

    def __post_init__(self) -> None:
        for name in (
            "body_bytes_max",
            "requests_in_flight_max",
            "engine_requests_max",
            "event_bytes_max",
            "bodies_bytes_max",
        ):
            at_least(f"limits.{name}", getattr(self, name), 1)
        at_least("limits.engine_waiting_max", self.engine_waiting_max, 1)


@dataclass(frozen=True)
class UpstreamSettings:
    """Connections and tries towards engines."""

    connections_max: int = 0
    """Sockets to engines per replica; 0 is no limit of its own, `requests_in_flight_max` bounds it."""
    connect_timeout_s: float = 5.0
    """An engine lives in the same cluster: no answer to SYN in 5 s means its node is gone."""
    keepalive_s: float = 4.0
    """Idle connections are closed before vLLM's server (uvicorn, 5 s) does, so a request never meets a closing one."""
    retry_attempts: int = 2
    """Further tries when the ModelServer names none: one lost engine and one bad luck."""
    retry_interval_s: float = 0.1
    """Wait before the same engine is tried again when the ModelServer names none."""
    suspect_s: float = 2.0
    """An engine that refused a connection is avoided this long: about one health period of its supervisor."""
    error_body_bytes_max: int = 64 * 2**10
    """What is read of an engine's error before another engine is tried."""
    answer_held_bytes_max: int = 4 * 2**20
    """A plain answer up to this size is held back until it is whole, so that one cut short can be asked for elsewhere."""
    prefill_body_bytes_max: int = 8 * 2**20
    """Largest answer of a prefill engine: one token and its `kv_transfer_params`."""

    def __post_init__(self) -> None:
        at_least("upstream.retry_attempts", self.retry_attempts, 0)
        at_least("upstream.connections_max", self.connections_max, 0)


@dataclass(frozen=True)
class SchedulingSettings:
    """Which plugins choose the engine. A name not known is refused with the list of those that are."""

    filters: tuple[str, ...] = ("ready", "circuit", "capacity", "context-fits", "lora-affinity")
    """Order matters only for cost: the cheapest first. A long queue is priced by `cost` rather than filtered."""
    scorers: tuple[tuple[str, float], ...] = (("cost", 1.0),)
    """Pairs of name and weight, weights >= 0."""
    args: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Arguments by plugin name; those not given keep their defaults."""
    config_file: str = ""
    """Path of a `routing.yaml` that replaces filters, scorers and args, and is followed while it changes; empty: none."""
    reload_period_s: float = 2.0
    """How often that file is looked at: a mounted ConfigMap takes a minute to change anyway."""

    def __post_init__(self) -> None:
        for name, weight in self.scorers:
            at_least(f"scheduling.scorers[{name}].weight", weight, 0)
        if self.reload_period_s <= 0:
            raise ValueError(f"scheduling.reload_period_s is {self.reload_period_s}; allowed: above 0")


@dataclass(frozen=True)
class GossipSettings:
    """Load told to the other ingress replicas by UDP."""

    host: str = "0.0.0.0"
    """Address to listen on: peers are on other nodes."""
    port: int = 0
    """UDP port; 0 takes a free one."""
    coalesce_ms: int = 20
    """Changes are gathered this long: 50 datagrams a second and peer at most."""
    full_state_s: float = 1.0
    """Everything is told again this often, which repairs lost datagrams."""
    expiry_s: float = 3.0
    """A peer's count not heard again for three full states is forgotten."""
    datagram_bytes_max: int = 1400
    """Below an Ethernet MTU: no fragments."""
    routes_bytes_per_s: int = 256 * 2**10
    """What a peer is told of prompts that were sent where, at most: a quarter of a megabyte is 30,000 blocks of text a
    second, and a thousandth of a data centre's link. 0: nothing."""
    key: str = field(default="", repr=False)
    """Shared secret that signs datagrams; empty: unsigned, for a trusted network."""

    def __post_init__(self) -> None:
        at_least("gossip.datagram_bytes_max", self.datagram_bytes_max, 512)
        at_least("gossip.coalesce_ms", self.coalesce_ms, 1)
        at_least("gossip.routes_bytes_per_s", self.routes_bytes_per_s, 0)


@dataclass(frozen=True)
class ScrapeSettings:
    """Reading the engines' own `/metrics`."""

    period_s: float = 1.0
    """Mean time between two questions to one engine: its queue changes in seconds, and the page costs it about a
    millisecond for each ingress replica that asks. 0: never."""
    timeout_s: float = 2.0
    """An engine that is slow to tell is busy; it is not asked again meanwhile."""
    stale_s: float = 5.0
    """A number older than this counts for nothing: two answers that did not come in time."""
    concurrency_max: int = 32
    """Engines asked at the same time by one replica."""
    page_bytes_max: int = 4 * 2**20
    """Largest page read; vLLM's is about 100 kB."""

    def __post_init__(self) -> None:
        at_least("scrape.period_s", self.period_s, 0)
        at_least("scrape.concurrency_max", self.concurrency_max, 1)
        if self.timeout_s <= 0:
            raise ValueError(f"scrape.timeout_s is {self.timeout_s}; allowed: above 0")
        at_least("scrape.stale_s", self.stale_s, self.period_s)


@dataclass(frozen=True)
class AccessLogSettings:
    """One line per request."""

    enabled: bool = True
    """On: the first question after an incident is which requests failed."""
    format: Literal["text", "json"] = "text"
    """Text reads well on a terminal."""
    output: str = "stdout"
    """`stdout`, `stderr` or a file's path (appended to)."""
    pending_lines_max: int = 65536
    """Lines waiting for a slow disk; beyond it lines are dropped and their number is logged."""
    flush_interval_s: float = 0.2
    """How late a line may be."""

    def __post_init__(self) -> None:
        if self.format not in ("text", "json"):
            raise ValueError(f"access_log.format is {self.format!r}; allowed: text, json")


@dataclass(frozen=True)
class WatchSettings:
    """Following the resource API."""

    retry_min_s: float = 0.2
    """First wait after a failed list or watch."""
    retry_max_s: float = 5.0
    """Longest wait: a restarted platform is found again within it."""
    silence_s: float = 30.0
    """A watch without any byte for this long (six bookmarks) is opened anew, from where it was."""
    rebuild_delay_s: float = 0.02
    """Events are gathered this long before the table is built: a restart of 100 engines is one rebuild, not 100."""


@dataclass(frozen=True)
class RoutingSettings:
    limits: LimitSettings = field(default_factory=LimitSettings)
    upstream: UpstreamSettings = field(default_factory=UpstreamSettings)
    scheduling: SchedulingSettings = field(default_factory=SchedulingSettings)
    gossip: GossipSettings = field(default_factory=GossipSettings)
    scrape: ScrapeSettings = field(default_factory=ScrapeSettings)
    access_log: AccessLogSettings = field(default_factory=AccessLogSettings)
    watch: WatchSettings = field(default_factory=WatchSettings)
    continuation: ContinuationSettings = field(default_factory=ContinuationSettings)
    traffic: TrafficSettings = field(default_factory=TrafficSettings)
    identity: IdentitySettings = field(default_factory=IdentitySettings)
    prefix: PrefixSettings = field(default_factory=PrefixSettings)
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    disaggregation: DisaggregationSettings = field(default_factory=DisaggregationSettings)
    rate_limits: RateLimitSettings = field(default_factory=RateLimitSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    external: ExternalSettings = field(default_factory=ExternalSettings)
    translation: TranslationSettings = field(default_factory=TranslationSettings)
    observe: ObserveSettings = field(default_factory=ObserveSettings)
    retry_after_s: int = 1
    """`Retry-After` when busy or when no engine is ready: an engine frees a slot within about a second."""
    owned_by: str = "hekla"
    """`owned_by` in `/v1/models`."""
