"""What an engine is: its step times, memory and limits, from accelerator and model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hekla.deployments.simengine.hardware import HARDWARE, kv_capacity_tokens, shape_named
from hekla.deployments.simengine.scheduler import Limits
from hekla.deployments.simengine.steps import Roofline, StepModel, Transfer
from hekla.simulation.request import SimRequest

RESTORE_GB_S = 22.7
"""From host memory to the accelerator, as measured for offloaded KV blocks (26 ms/GB)."""
LARGE_MEMORY_GIB = 70


@dataclass(frozen=True, slots=True)
class EngineSpec:
    kind: str
    """`ways x accelerator`, the type whose engines are alike."""
    model: StepModel
    blocks: int
    block_tokens: int
    limits: Limits = field(default_factory=Limits)
    spill_blocks: int = 0
    """CPU tier, in blocks; 0: none."""
    restore: Transfer = field(default_factory=lambda: Transfer(131_072, RESTORE_GB_S, setup_ms=0.0))
    transfer: Transfer = field(default_factory=lambda: Transfer(131_072))
    """KV from another engine."""
    lease_s: float = 30.0
    adapter_load_s: float = 0.05
    """Fetching an adapter that is not on the accelerator."""
    model_name: str = ""
    accelerator: str = ""
    """As the backend's labels name them to routers."""

    @property
    def capacity_tokens(self) -> int:
        return self.blocks * self.block_tokens

    def check_fits(self, request: SimRequest) -> None:
        """Raises ValueError for a request that would never end on such an engine."""
        if request.prompt_tokens + request.output_tokens > self.capacity_tokens:
            raise ValueError(
                f"request {request.id} needs {request.prompt_tokens} + {request.output_tokens} tokens; "
                f"a {self.kind} engine has memory for {self.capacity_tokens}"
            )
        if request.adapter and not self.limits.max_loras:
            raise ValueError(
                f"request {request.id} wants the adapter {request.adapter!r}; a {self.kind} has max_loras 0"
            )


def engine_spec(
    model: str, accelerator: str, ways: int = 1, *, block_tokens: int = 64, spill_tokens: int = 0, max_loras: int = 0
) -> EngineSpec:
    """An engine with vLLM's defaults. Raises ValueError or KeyError for a name that is not in the tables."""
    shape, hardware = shape_named(model), HARDWARE[accelerator]
    tokens = kv_capacity_tokens(shape, hardware, ways)
    is_large = hardware.memory_gib >= LARGE_MEMORY_GIB
    limits = Limits(
        max_num_seqs=256,
        max_num_batched_tokens=8192 if is_large and accelerator != "A100" else 2048,
        max_model_len=131_072,
        max_loras=max_loras,
    )
    return EngineSpec(
        kind=f"{ways}x{accelerator}",
        model=Roofline(shape, hardware, ways),
        blocks=tokens // block_tokens,
        block_tokens=block_tokens,
        limits=limits,
        spill_blocks=spill_tokens // block_tokens,
        restore=Transfer(shape.kv_bytes_per_token, RESTORE_GB_S, setup_ms=0.0),
        transfer=Transfer(shape.kv_bytes_per_token, hardware.network_gb_s),
        model_name=model,
        accelerator=accelerator,
    )


def with_unbounded_cache(spec: EngineSpec, factor: int = 1000) -> EngineSpec:
    """For the bound 'infinite cache': the same engine, `factor` times the KV memory."""
    return replace(spec, blocks=spec.blocks * factor)
