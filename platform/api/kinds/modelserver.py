"""ModelServer: a pool of engines chosen by labels, and how the router speaks to them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from hekla.platform.api.adapters import ADAPTERS_MAX, LoraAdapter, adapter_problems
from hekla.platform.api.kubetypes import LabelKey, Labels
from hekla.platform.api.meta import ApiModel, Json
from hekla.platform.api.registry import Column, Kind
from hekla.platform.api.values import INT32_MAX, Duration, parse_duration_s
from hekla.platform.base.errors import FieldError

InferenceEngine = Literal["vLLM", "SGLang", "Simulated"]
KVConnectorType = Literal["http", "lmcache", "nixl", "mooncake"]

PERIOD_S_MIN = 0.1
"""Of outlier detection: shorter than an engine's step it would judge single requests."""


class PDGroup(ApiModel):
    """Turns on prefill/decode routing: a pair has the same value of the label `groupKey`."""

    group_key: LabelKey | None = Field(default=None, min_length=1)
    """The label whose value the two engines of a pair share; required unless `scope` is `pool`."""
    prefill_labels: Labels = Field(min_length=1)
    """Labels, besides matchLabels, of the engines that prefill."""
    decode_labels: Labels = Field(min_length=1)
    """Labels, besides matchLabels, of the engines that decode."""
    scope: Literal["group", "pool"] = "group"
    """hekla's addition: `pool` pairs any prefill with any decode engine of the pool, those of the same revision first."""
    local_prefill_tokens_max: int | None = Field(default=None, ge=0, le=INT32_MAX)
    """hekla's addition: prompts with at most this many tokens that a decode engine has not cached are computed there;
    0: none are. Unset: decided by predicted time, request by request."""

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if self.scope == "group" and self.group_key is None:
            raise ValueError("groupKey: required while scope is group; allowed without it: scope pool")
        return self


class WorkloadSelector(ApiModel):
    match_labels: Labels = Field(min_length=1)
    """Labels of the pool's engines, in the same namespace."""
    pd_group: PDGroup | None = None


class WorkloadPort(ApiModel):
    port: int = Field(ge=1, le=65535)
    """The engine's port on Kubernetes; on Ray an engine reports the port it was given."""
    protocol: Literal["http", "https"] = "http"


class Retry(ApiModel):
    attempts: int = Field(ge=0, le=INT32_MAX)
    """Engines tried beside the first."""
    retry_interval: Duration = "100ms"
    """Wait between two tries."""


def _checked_period(text: str) -> str:
    if parse_duration_s(text) < PERIOD_S_MIN:
        raise ValueError(f"{text!r} is too short; allowed: 100ms or more")
    return text


Period = Annotated[str, AfterValidator(_checked_period)]


class OutlierDetection(ApiModel):
    """hekla's addition: when an engine that fails requests gets none for a while. Unset fields: the ingress's settings."""

    consecutive_failures: int | None = Field(default=None, ge=0, le=INT32_MAX)
    """Failures in a row that eject an engine; 0: never by this."""
    failure_percent: float | None = Field(default=None, ge=0, le=100)
    """Failures among an engine's requests within `window` that eject it; 0: never by this."""
    requests_min: int | None = Field(default=None, ge=1, le=INT32_MAX)
    """Requests within `window` before their share of failures counts."""
    window: Period | None = None
    base_ejection_time: Period | None = None
    """The first ejection's; it doubles with each that follows."""
    max_ejection_time: Period | None = None
    max_ejection_percent: float | None = Field(default=None, ge=0, le=99)
    """Engines of the pool that may be out at once; never all."""
    latency_factor: float | None = Field(default=None, ge=1.5)
    """Ejects an engine whose time to first token, over its forecast, is this many times its siblings' median."""


class TrafficPolicy(ApiModel):
    timeout: Duration | None = None
    """Longest wait for the response's headers."""
    retry: Retry | None = None
    idle_timeout: Duration | None = None
    """hekla's addition: longest silence of an engine whose headers have come."""
    total_timeout: Duration | None = None
    """hekla's addition: longest time from a request's arrival to its answer's end."""
    outlier_detection: OutlierDetection | None = None


class KVConnector(ApiModel):
    type: KVConnectorType = "http"


class ModelServerSpec(ApiModel):
    model: str | None = Field(default=None, max_length=256)
    """The name the engines know; replaces the request's `model` unless that names a LoRA adapter."""
    inference_engine: InferenceEngine
    """`Simulated` is hekla's addition: its simulated engine, which speaks as vLLM does."""
    workload_selector: WorkloadSelector
    workload_port: WorkloadPort = Field(default_factory=lambda: WorkloadPort(port=8000))
    traffic_policy: TrafficPolicy | None = None
    kv_connector: KVConnector | None = None
    """How prefill hands its KV cache to decode. Unset: `http`; with SGLang its own way."""
    lora_adapters: list[LoraAdapter] = Field(default_factory=list, max_length=ADAPTERS_MAX)
    """hekla's addition: LoRA adapters that the pool's engines load, spread and unload as they are asked for."""


def check(new: Json, _old: Json | None) -> list[FieldError]:
    spec = ModelServerSpec.model_validate(new["spec"])
    return list(adapter_problems(spec.lora_adapters, "spec.loraAdapters", spec.model))


KIND = Kind(
    group="networking.serving.volcano.sh",
    version="v1alpha1",
    kind="ModelServer",
    plural="modelservers",
    short_names=("mserver",),
    spec=ModelServerSpec,
    check=check,
    columns=(
        Column("MODEL", "spec.model"),
        Column("ENGINE", "spec.inferenceEngine"),
        Column("CONNECTOR", "spec.kvConnector.type"),
    ),
    doc="a pool of engines the router can send requests to",
)
