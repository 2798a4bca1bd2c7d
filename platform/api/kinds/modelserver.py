"""ModelServer: a pool of engines chosen by labels, and how the router speaks to them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hekla.platform.api.kubetypes import LabelKey, Labels
from hekla.platform.api.meta import ApiModel
from hekla.platform.api.registry import Column, Kind
from hekla.platform.api.values import INT32_MAX, Duration

InferenceEngine = Literal["vLLM", "SGLang", "Simulated"]
KVConnectorType = Literal["http", "lmcache", "nixl", "mooncake"]


class PDGroup(ApiModel):
    """Turns on prefill/decode routing: a pair has the same value of the label `groupKey`."""

    group_key: LabelKey = Field(min_length=1)
    """The label whose value the two engines of a pair share."""
    prefill_labels: Labels = Field(min_length=1)
    """Labels, besides matchLabels, of the engines that prefill."""
    decode_labels: Labels = Field(min_length=1)
    """Labels, besides matchLabels, of the engines that decode."""


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


class TrafficPolicy(ApiModel):
    timeout: Duration | None = None
    """Longest wait for the response's headers."""
    retry: Retry | None = None


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


KIND = Kind(
    group="networking.serving.volcano.sh",
    version="v1alpha1",
    kind="ModelServer",
    plural="modelservers",
    short_names=("mserver",),
    spec=ModelServerSpec,
    columns=(
        Column("MODEL", "spec.model"),
        Column("ENGINE", "spec.inferenceEngine"),
        Column("CONNECTOR", "spec.kvConnector.type"),
    ),
    doc="a pool of engines the router can send requests to",
)
