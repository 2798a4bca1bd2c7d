"""Settings of LoRA adapters in the ingress."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoraSettings:
    """Requests for adapters that a ModelServer declares and no engine holds yet."""

    load_wait_s: float = 30.0
    """Longest wait for an adapter to be loaded: fetching a few hundred MB, and a place that must be freed first. Then 503."""
    waiting_max: int = 1024
    """Requests that wait for adapters at once, in one replica; above it 503 at once. Each holds its body."""
    report_s: float = 5.0
    """How often a replica tells the platform what was asked for, when there is news. The planner's rates have a time
    constant of a minute; that requests wait is told at once, and repeated this often."""

    def __post_init__(self) -> None:
        for name, value, least in (("load_wait_s", self.load_wait_s, 0), ("waiting_max", self.waiting_max, 0)):
            if value < least:
                raise ValueError(f"lora.{name} is {value}; allowed: {least} or more")
        if not 0.1 <= self.report_s <= 8:
            raise ValueError(f"lora.report_s is {self.report_s}; allowed: 0.1 to 8")
