"""What an engine's own flags say of LoRA. Pure."""

from __future__ import annotations

from hekla.deployments.engines.flags import has_flag, taken_apart
from hekla.deployments.engines.vllm import ENABLE_LORA
from hekla.deployments.launch import EngineLaunch, EngineType

_SLOTS: dict[EngineType, tuple[str, int]] = {
    "vLLM": ("--max-loras", 1), "Simulated": ("--max-loras", 1), "SGLang": ("--max-loras-per-batch", 8),
}  # fmt: skip
_RANKS: dict[EngineType, tuple[str, int]] = {"vLLM": ("--max-lora-rank", 16)}
"""Flag and the engine's default. SGLang takes the rank from its own first adapters, and says itself what does not fit."""


def adapter_slots(launch: EngineLaunch) -> int:
    """Adapters that an `understood` launch can hold; 0 when LoRA is off."""
    if launch.engine not in _SLOTS or not has_flag(launch.args, ENABLE_LORA):
        return 0
    return _number(launch.args, *_SLOTS[launch.engine])


def rank_max(launch: EngineLaunch) -> int:
    """The largest rank it loads; 0: not known."""
    return _number(launch.args, *_RANKS[launch.engine]) if launch.engine in _RANKS else 0


def _number(args: list[str], flag: str, default: int) -> int:
    found, _ = taken_apart(args, flag)
    return int(found[0]) if found and found[0].isdigit() else default
