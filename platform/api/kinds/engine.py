"""Engine: one supervised engine process, what a pod is on Kubernetes. Written by hekla, read by everyone.

The ModelServing controller makes one Engine per entry or worker of a role replica, with the labels a pod would
carry, so that a ModelServer's `workloadSelector` selects engines as it selects pods.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from hekla.platform.api.meta import ApiModel
from hekla.platform.api.registry import Column, Kind

Phase = Literal["Pending", "Starting", "Fetching", "Loading", "Ready", "Draining", "Failed", "Stopped"]
"""Pending: no room yet · Starting: actor and process come up · Fetching: weights on their way to this node ·
Loading: the engine reads them · Ready: `/health` answered · Draining: no new requests · Failed: to be replaced per
recoveryPolicy · Stopped: ended on purpose."""


class EngineSpec(ApiModel):
    serving: str
    """Name of the ModelServing."""
    group: int
    role: str
    role_replica: int
    index: int = 0
    """0 is the entry, 1… the workers."""
    revision: str = ""
    launch: dict[str, Any] = Field(default_factory=dict)
    """An `EngineLaunch` (hekla.deployments.launch) as JSON."""
    resources: dict[str, float] = Field(default_factory=dict)
    """What its bundle holds, in Ray's names and units."""
    placement_group: str = ""
    bundle: int = 0
    node: str = ""
    """Ray node id (hex) that the planner chose."""


AdapterState = Literal["Fetching", "Loading", "Loaded", "Draining", "Failed"]
"""Fetching: on its way to this node · Loading: the engine reads it, or waits for a free place · Loaded: served ·
Draining: no new requests, those it has are finished before it is unloaded · Failed: see the message; tried again."""


class EngineAdapter(ApiModel):
    """A LoRA adapter on one engine."""

    name: str
    state: AdapterState
    message: str = ""
    owner: str = ""
    """`namespace/name` of the ModelServer that wants it there."""


class EngineStatus(ApiModel):
    phase: Phase = "Pending"
    message: str = ""
    address: str = ""
    """`http://host:port` of the OpenAI server; empty until the port is known."""
    node_name: str = ""
    pid: int = 0
    """Process id of the engine itself."""
    supervisor_pid: int = 0
    models: list[str] = Field(default_factory=list)
    """Names the engine answers to: the served model, then loaded LoRA adapters."""
    adapters: list[EngineAdapter] = Field(default_factory=list)
    """LoRA adapters that hekla has told it to load, or is unloading."""
    adapter_slots: int = 0
    """LoRA adapters it can hold (`--max-loras`); 0: it runs without `--enable-lora`."""
    max_model_len: int = 0
    """Context length in tokens, 0 while unknown."""
    kv_events: str = ""
    """ZMQ endpoint of the KV event publisher; empty when off. Port 0: one per data-parallel rank, told by the engine."""
    kv_replay: str = ""
    """ZMQ endpoint where past KV events are had again; empty when there is none, or with one per rank."""
    bootstrap_port: int = 0
    """Where a prefill engine tells decode engines how to fetch its KV; 0 when it has no such server."""
    restarts: int = 0
    started_at: str = ""
    ready_at: str = ""
    failed_at: str = ""
    """Since when it has not been ready after a failure; empty while it is well."""
    progress: float = 0.0
    """0…1 within the phase, for progress bars."""


KIND = Kind(
    group="hekla.io",
    version="v1alpha1",
    kind="Engine",
    plural="engines",
    short_names=("eng",),
    spec=EngineSpec,
    internal=True,
    columns=(
        Column("PHASE", "status.phase"),
        Column("ROLE", "spec.role"),
        Column("NODE", "status.nodeName"),
        Column("ADDRESS", "status.address"),
        Column("PID", "status.pid"),
        Column("MESSAGE", "status.message"),
    ),
    doc="one engine process under supervision",
)
