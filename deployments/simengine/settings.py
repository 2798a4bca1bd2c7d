"""Everything a simulated engine can be told, frozen. `cli` fills it from the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hekla.deployments.simengine.hardware import HARDWARE, ModelShape, kv_capacity_tokens, shape_for, shape_named
from hekla.deployments.simengine.publisher import KvEventsConfig
from hekla.deployments.simengine.scheduler import Policy
from hekla.deployments.simengine.steps import Linear, Roofline, StepModel

DEFAULT_BLOCKS = 8192
"""KV blocks when neither hardware nor a number is given: 131,072 tokens."""

DEFAULT_KV_BYTES_PER_TOKEN = 131_072
"""Llama-3-8B in bf16."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Either `hardware` (with `params_b` or `shape`) or the linear model."""

    hardware: str = ""
    params_b: float = 8.03
    shape: str = ""
    tensor_parallel: int = 1
    linear: Linear = field(default_factory=Linear)
    time_scale: float = 1.0
    """Multiplies every modelled time; 0: none."""

    def model_shape(self) -> ModelShape:
        return shape_named(self.shape) if self.shape else shape_for(self.params_b)

    def step_model(self) -> StepModel:
        if not self.hardware:
            return self.linear
        return Roofline(self.model_shape(), HARDWARE[self.hardware], self.tensor_parallel)


@dataclass(frozen=True, slots=True)
class Faults:
    """Failures on purpose. Zeros: none."""

    error_rate: float = 0.0
    """Share of generation requests refused before they reach the engine."""
    error_code: int = 500
    fail_health_after_s: float = 0.0
    """`/health` answers 503 from this many seconds after the start."""
    die_after_tokens: int = 0
    """The process exits at once, mid-stream, when it has generated this many tokens."""
    hang_after_tokens: int = 0
    """The engine stops stepping, but answers `/health`, when it has generated this many tokens."""


@dataclass(frozen=True, slots=True)
class Settings:
    model: str
    served_names: tuple[str, ...]
    host: str = "0.0.0.0"
    port: int = 8000
    api_key: str = ""
    max_model_len: int = 32_768
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    block_size: int = 16
    gpu_blocks: int = 0
    """0: from the hardware's memory, or `DEFAULT_BLOCKS`."""
    prefix_caching: bool = True
    policy: Policy = "fcfs"
    long_prefill_tokens: int = 0
    max_loras: int = 0
    """0: LoRA is off."""
    adapters: tuple[tuple[str, str], ...] = ()
    """(name, path) loaded from the start."""
    max_queued_requests: int = 0
    """More in the engine than this are refused with 503; 0: no limit."""
    mean_output_tokens: float = 128.0
    seed: int = 0
    timing: Timing = field(default_factory=Timing)
    faults: Faults = field(default_factory=Faults)
    kv_events: KvEventsConfig = field(default_factory=KvEventsConfig)
    kv_connector: str = ""
    """Empty: KV is not handed over."""
    disaggregation_mode: Literal["", "prefill", "decode"] = ""
    """SGLang's role, in which every request has to name a room; empty: vLLM's ways."""
    bootstrap_port: int = 8998
    """Of a prefill engine's bootstrap server; 0: none."""
    engine_id: str = ""
    kv_load_failure: Literal["recompute", "fail"] = "fail"
    side_channel_host: str = "127.0.0.1"
    side_channel_port: int = 5600
    lease_s: float = 30.0
    transfer_gb_s: float = 25.0
    transfer_setup_ms: float = 5.0
    startup_s: float = 0.0

    def blocks(self) -> int:
        """Raises ValueError when the model does not fit the hardware."""
        if self.gpu_blocks:
            return self.gpu_blocks
        if not self.timing.hardware:
            return max(DEFAULT_BLOCKS, -(-self.max_model_len // self.block_size))
        hardware = HARDWARE[self.timing.hardware]
        return kv_capacity_tokens(self.timing.model_shape(), hardware, self.timing.tensor_parallel) // self.block_size

    def kv_bytes_per_token(self) -> int:
        return self.timing.model_shape().kv_bytes_per_token if self.timing.hardware else DEFAULT_KV_BYTES_PER_TOKEN
