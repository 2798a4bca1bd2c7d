"""The nouns of routing: an engine as a backend, a ModelServer as a pool of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hekla.platform.api.meta import Json, matches_labels
from hekla.platform.api.values import parse_duration_s
from hekla.routing.connectors.catalog import CONNECTORS

ServerKey = tuple[str, str]
"""Namespace and name of a ModelServer."""


@dataclass(frozen=True)
class Backend:
    """An engine that can take requests."""

    key: str
    """`namespace/name` of the Engine."""
    url: str
    """`http://host:port`, no slash at the end."""
    models: tuple[str, ...] = ()
    """Names it answers to, LoRA adapters included; empty while unknown."""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    node: str = ""
    max_model_len: int = 0
    """Context length in tokens, 0 while unknown."""
    kv_events: str = ""
    """Where it publishes its KV events (ZMQ); empty: it does not."""
    kv_replay: str = ""
    """Where past ones are had again; empty: nowhere, or only the engine knows."""
    bootstrap_port: int = 0
    """Where other engines learn how to fetch its KV; 0 while unknown."""

    @property
    def is_decode_only(self) -> bool:
        """It computes no prompts of its own."""
        return self.labels.get(LABEL_DECODE_ONLY, "").lower() == "true"

    @property
    def data_parallel(self) -> int:
        """Ranks between which its server balances; 1 unless its label says otherwise."""
        size = self.labels.get(LABEL_DATA_PARALLEL, "")
        return max(int(size), 1) if size.isdigit() and size.isascii() and len(size) <= 4 else 1


LABEL_DECODE_ONLY = "hekla.io/decode-only"
LABEL_DATA_PARALLEL = "hekla.io/data-parallel-size"

_EJECTION_NUMBERS = {
    "consecutiveFailures": "consecutive_failures",
    "failurePercent": "failure_percent",
    "requestsMin": "requests_min",
    "maxEjectionPercent": "pool_percent_max",
    "latencyFactor": "latency_factor",
}
_EJECTION_TIMES = {"window": "window_s", "baseEjectionTime": "base_s", "maxEjectionTime": "max_s"}


@dataclass(frozen=True)
class RetryPolicy:
    attempts: int
    """Further tries after the first."""
    interval_s: float


@dataclass(frozen=True)
class PrefillGroup:
    """Prefill and decode engines between which KV can move: those of one ServingGroup, or of a whole pool."""

    prefill: tuple[Backend, ...]
    decode: tuple[Backend, ...]


@dataclass(frozen=True)
class ModelServer:
    """A ModelServer with the engines its selector finds ready now."""

    key: ServerKey
    model: str
    """Overwrites the request's `model`; empty: it stays."""
    engine: str
    backends: tuple[Backend, ...]
    connector: str = ""
    """Name of the prefill/decode connector."""
    groups: Mapping[str, PrefillGroup] | None = None
    """By group value, only groups that can serve: with both roles ready, or with decode engines that do both. None:
    prefill and decode are not separated."""
    local_prefill_tokens_max: int | None = None
    """Uncached prompt tokens up to which a decode engine computes them itself; None: the ingress decides."""
    adapters: frozenset[str] = frozenset()
    """LoRA adapters that it declares: loaded, or to be loaded when they are asked for."""
    timeout_s: float | None = None
    """Longest wait for response headers."""
    retry: RetryPolicy | None = None
    idle_s: float | None = None
    """Longest silence inside an answer; None: the ingress's."""
    total_s: float | None = None
    """From a request's arrival to its answer's end; None: the ingress's."""
    ejection: Mapping[str, float] | None = None
    """What `trafficPolicy.outlierDetection` says, by the names of `traffic.ejection`'s settings."""

    @property
    def name(self) -> str:
        return "/".join(self.key)

    @property
    def is_ready(self) -> bool:
        """Whether any engine, or any pair of them, could take a request."""
        return bool(self.groups) if self.groups is not None else bool(self.backends)


def backend_of(engine: Json) -> Backend | None:
    """The engine as a backend, or None when it can take no requests: not ready, leaving, or a worker."""
    status, meta = engine.get("status") or {}, engine["metadata"]
    if status.get("phase") != "Ready" or not status.get("address") or meta.get("deletionTimestamp"):
        return None
    if (engine.get("spec") or {}).get("index", 0) != 0:
        return None
    return Backend(
        key=f"{meta.get('namespace') or 'default'}/{meta['name']}",
        url=status["address"].rstrip("/"),
        models=tuple(status.get("models") or ()),
        labels=dict(meta.get("labels") or {}),
        node=status.get("nodeName", ""),
        max_model_len=status.get("maxModelLen", 0),
        kv_events=status.get("kvEvents", ""),
        kv_replay=status.get("kvReplay", ""),
        bootstrap_port=status.get("bootstrapPort") or 0,
    )


def server_of(obj: Json, engines: list[Json]) -> ModelServer:
    """A ModelServer with its ready backends among the engines of its namespace. Raises ValueError on a bad field."""
    meta, spec = obj["metadata"], obj.get("spec") or {}
    selector = spec.get("workloadSelector") or {}
    wanted = selector.get("matchLabels") or {}
    https = (spec.get("workloadPort") or {}).get("protocol") == "https"
    chosen = [b for e in engines if matches_labels(e, wanted) and (b := _reached_by(backend_of(e), https))]
    policy = spec.get("trafficPolicy") or {}
    return ModelServer(
        key=(meta.get("namespace") or "default", meta["name"]),
        model=spec.get("model") or "",
        engine=spec.get("inferenceEngine") or "vLLM",
        backends=tuple(sorted(chosen, key=lambda b: b.key)),
        connector=_connector_of(spec),
        groups=_groups_of(chosen, selector.get("pdGroup"), _connector_of(spec)),
        local_prefill_tokens_max=(selector.get("pdGroup") or {}).get("localPrefillTokensMax"),
        adapters=frozenset(one["name"] for one in spec.get("loraAdapters") or ()),
        timeout_s=_seconds(policy, "timeout"),
        retry=_retry_of(policy.get("retry")),
        idle_s=_seconds(policy, "idleTimeout"),
        total_s=_seconds(policy, "totalTimeout"),
        ejection=_ejection_of(policy.get("outlierDetection")),
    )


def _reached_by(backend: Backend | None, https: bool) -> Backend | None:
    if backend is None or not https or backend.url.startswith("https://"):
        return backend
    return Backend(**{**vars(backend), "url": "https://" + backend.url.removeprefix("http://")})


def _connector_of(spec: Json) -> str:
    kind = (spec.get("kvConnector") or {}).get("type")
    if kind:
        return str(kind)
    return "sglang" if spec.get("inferenceEngine") == "SGLang" else "http"


def _retry_of(retry: Json | None) -> RetryPolicy | None:
    if not retry:
        return None
    interval = retry.get("retryInterval")
    return RetryPolicy(int(retry.get("attempts") or 0), parse_duration_s(interval or "100ms"))


def _seconds(policy: Json, name: str) -> float | None:
    return parse_duration_s(policy[name]) if policy.get(name) else None


def _ejection_of(detection: Json | None) -> Mapping[str, float] | None:
    if detection is None:
        return None
    found = {
        ours: float(detection[theirs])
        for theirs, ours in _EJECTION_NUMBERS.items()
        if detection.get(theirs) is not None
    }
    times = {
        ours: parse_duration_s(detection[theirs]) for theirs, ours in _EJECTION_TIMES.items() if detection.get(theirs)
    }
    return {**found, **times}


def _groups_of(backends: list[Backend], pd_group: Json | None, connector: str) -> Mapping[str, PrefillGroup] | None:
    if not pd_group:
        return None
    members: dict[str, tuple[list[Backend], list[Backend]]] = {}
    is_pool = pd_group.get("scope") == "pool"
    for backend in backends:
        value = "" if is_pool else backend.labels.get(pd_group["groupKey"])
        if value is None:
            continue
        prefill, decode = members.setdefault(value, ([], []))
        if _has(backend, pd_group.get("prefillLabels") or {}):
            prefill.append(backend)
        elif _has(backend, pd_group.get("decodeLabels") or {}):
            decode.append(backend)
    may_be_local = connector not in CONNECTORS or CONNECTORS[connector].leaves_decode_able
    return {
        value: PrefillGroup(tuple(p), tuple(d))
        for value, (p, d) in sorted(members.items())
        if d and (p or (may_be_local and not all(backend.is_decode_only for backend in d)))
    }


def _has(backend: Backend, labels: Mapping[str, str]) -> bool:
    return all(backend.labels.get(key) == value for key, value in labels.items())
