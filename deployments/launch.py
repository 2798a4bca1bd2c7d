"""What the controller hands to an engine's supervisor, and what the supervisor reports back."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hekla.platform.api.kinds.engine import EngineAdapter, Phase
from hekla.platform.api.meta import ApiModel

EngineType = Literal["vLLM", "SGLang", "Simulated", "Command"]
"""`Command`: any program that speaks OpenAI HTTP and `/health` on the port it is given."""

EngineRole = Literal["server", "prefill", "decode", "encode", "worker"]

SUPERVISOR_TARGET = "hekla.deployments.supervisor:EngineSupervisor"


class EngineLaunch(ApiModel):
    """Everything a supervisor needs; JSON inside, so that it survives in the Engine object's spec."""

    name: str
    namespace: str = "default"
    engine: EngineType = "vLLM"
    role: EngineRole = "server"
    model_uri: str = ""
    """Where the weights come from: `hf://org/name`, `ms://`, `s3://bucket/prefix`, `obs://`, `pvc://claim/path`,
    `gguf://package/file.gguf` or `gguf:///path/file.gguf`, a local path; empty when the command names a model itself."""
    cache_uri: str = ""
    """`hostpath:///dir` or `pvc://claim`; empty: the platform's cache folder on the node."""
    served_model_name: str = ""
    command: list[str] = Field(default_factory=list)
    """The container's command and args as the manifest gives them; empty: the engine's usual command."""
    args: list[str] = Field(default_factory=list)
    """Engine arguments (`--max-model-len`, `2048` …) added to the usual command."""
    env: dict[str, str] = Field(default_factory=dict)
    port: int = 0
    """The port the manifest names. The supervisor takes a free one on its node and reports it in `address`."""
    cpus: float = 1.0
    group_size: int = 1
    worker_index: int = 0
    entry_actor: str = ""
    """Actor name of the entry, for workers that must learn ENTRY_ADDRESS."""
    startup_timeout_s: float = 1800.0
    """Longest time from process start to the first healthy answer: large weights load slowly."""
    health_path: str = "/health"
    health_period_s: float = 2.0
    health_timeout_s: float = 10.0
    health_failures_max: int = 3
    """Consecutive failed probes after which a ready engine is declared Failed."""
    drain_grace_s: float = 30.0


class EngineReport(ApiModel):
    """A supervisor's news; `version` grows with every change."""

    version: int = 0
    phase: Phase = "Starting"
    message: str = ""
    progress: float = 0.0
    address: str = ""
    node_name: str = ""
    pid: int = 0
    supervisor_pid: int = 0
    models: list[str] = Field(default_factory=list)
    max_model_len: int = 0
    kv_events: str = ""
    kv_replay: str = ""
    bootstrap_port: int = 0
    adapters: list[EngineAdapter] = Field(default_factory=list)
    adapter_slots: int = 0


# An engine supervisor (SUPERVISOR_TARGET; `FakeSupervisor` beside it) is a class with these async methods:
#
#   __init__(launch: dict)                         an EngineLaunch as JSON; starts nothing
#   start() -> None                                begins the work in the background; idempotent
#   report(seen: int, wait_s: float) -> dict       an EngineReport; returns when version > seen or wait_s passed
#   drain(grace_s: float) -> None                  Draining, waits until idle or grace_s, then stops the process: Stopped
#   set_adapters(owner: str, wanted: list) -> None  LoRA adapters (`AdapterAsk` as JSON) that `owner`, a ModelServer, wants;
#                                                  replaces what it wanted before, and returns before they are loaded
#   stop() -> None                                 ends the process tree now: Stopped
#   logs(offset: int, limit: int) -> dict          {"text", "next", "size"}: bytes [offset, offset+limit) of its log;
#                                                  a negative offset counts from the end
