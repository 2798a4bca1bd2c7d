"""Accelerators and model shapes the roofline knows. Figures: vendors' data sheets; efficiencies: fitted to published
calibrations (a guess where the comment says so)."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Hardware:
    name: str
    memory_gib: float
    bandwidth_tb_s: float
    bf16_tflops: float
    flops_efficiency: float
    bandwidth_efficiency: float
    link_gb_s: float
    """Between accelerators of one engine (tensor parallel)."""
    network_gb_s: float
    """Between engines (KV transfer)."""


HARDWARE: dict[str, Hardware] = {
    item.name: item
    for item in (
        Hardware("L4", 24, 0.30, 121, 0.55, 0.70, 32, 12.5),
        Hardware("A10G", 24, 0.60, 70, 0.60, 0.70, 32, 12.5),
        Hardware("L40S", 45, 0.864, 362, 0.45, 0.72, 32, 12.5),
        Hardware("A100", 80, 2.04, 312, 0.66, 0.70, 300, 25),
        Hardware("H100", 80, 3.35, 989, 0.62, 0.71, 450, 50),
        Hardware("H200", 141, 4.8, 989, 0.62, 0.71, 450, 50),
        Hardware("B200", 180, 7.7, 2250, 0.55, 0.70, 900, 50),  # efficiencies guessed
        Hardware("910B", 64, 1.6, 313, 0.50, 0.62, 196, 25),  # bandwidth and efficiencies guessed
    )
}


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A dense decoder. `linear_params` leaves out the input embedding, which costs no arithmetic."""

    name: str
    params: float
    linear_params: float
    layers: int
    width: int
    query_width: int
    kv_bytes_per_token: int
    weight_bytes_per_param: float = 2.0

    @property
    def weight_bytes(self) -> float:
        return self.params * self.weight_bytes_per_param


SHAPES: tuple[ModelShape, ...] = (
    ModelShape("SmolLM2-135M", 0.1345e9, 0.1345e9, 30, 576, 576, 23_040),
    ModelShape("Qwen2.5-0.5B", 0.494e9, 0.494e9, 24, 896, 896, 12_288),
    ModelShape("Qwen2.5-1.5B", 1.54e9, 1.54e9, 28, 1536, 1536, 28_672),
    ModelShape("Llama-3.2-3B", 3.21e9, 3.21e9, 28, 3072, 3072, 114_688),
    ModelShape("Qwen2.5-7B", 7.616e9, 7.071e9, 28, 3584, 3584, 57_344),
    ModelShape("Llama-3-8B", 8.03e9, 7.505e9, 32, 4096, 4096, 131_072),
    ModelShape("Qwen3-32B", 32.762e9, 31.984e9, 64, 5120, 8192, 262_144),
    ModelShape("Llama-3-70B", 70.554e9, 69.503e9, 80, 8192, 8192, 327_680),
)


def shape_for(params_b: float) -> ModelShape:
    """The known shape nearest in parameters, its weights scaled to `params_b` billions. Raises ValueError below 0.01."""
    if params_b < 0.01:
        raise ValueError(f"params_b: {params_b} is below 0.01 billion parameters")
    params = params_b * 1e9
    near = min(SHAPES, key=lambda shape: max(shape.params / params, params / shape.params))
    ratio = params / near.params
    return ModelShape(
        near.name,
        params,
        near.linear_params * ratio,
        near.layers,
        near.width,
        near.query_width,
        near.kv_bytes_per_token,
    )


def shape_named(name: str) -> ModelShape:
    """Raises ValueError that lists the known names."""
    for shape in SHAPES:
        if shape.name == name:
            return shape
    raise ValueError(f"model shape {name!r} is unknown; known: {', '.join(shape.name for shape in SHAPES)}")


def kv_capacity_tokens(shape: ModelShape, hardware: Hardware, tensor_parallel: int = 1) -> int:
    """KV tokens that fit beside the weights: 90 % of memory, less 4 GB per device for activations and graphs."""
    usable = tensor_parallel * hardware.memory_gib * GIB * 0.9
    free = usable - shape.weight_bytes - 4e9 * tensor_parallel
    if free < shape.kv_bytes_per_token:
        raise ValueError(f"{shape.name} does not fit {tensor_parallel} x {hardware.name}: raise tensor_parallel")
    return int(free / shape.kv_bytes_per_token)
