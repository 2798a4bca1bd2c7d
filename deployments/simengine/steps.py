"""How long one step of an engine takes: a roofline over hardware constants, or a line fitted to measurements."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from hekla.deployments.simengine.hardware import Hardware, ModelShape


@dataclass(slots=True)
class StepWork:
    """What a step computes. Tokens and contexts are counts of tokens."""

    decodes: int = 0
    decode_context: int = 0
    """Sum of the contexts of the decoding sequences."""
    prefills: list[tuple[int, int]] = field(default_factory=list)
    """(new tokens, context before them) of each prompt chunk."""

    @property
    def tokens(self) -> int:
        return self.decodes + sum(new for new, _ in self.prefills)

    @property
    def sequences(self) -> int:
        return self.decodes + len(self.prefills)


class StepModel(Protocol):
    def step_s(self, work: StepWork) -> float:
        """Seconds the step takes; `work` is not empty."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """Linear layers are bound by arithmetic or by reading the weights; attention adds reading KV and its own
    arithmetic; tensor parallelism adds two all-reduces a layer; each layer, sequence and step has a fixed cost.

    Within about 15 % of published kernel profiles and 2 % of published end-to-end throughputs for dense models.
    """

    shape: ModelShape
    hardware: Hardware
    tensor_parallel: int = 1

    def step_s(self, work: StepWork) -> float:
        return self._linear_s(work.tokens) + self._attention_s(work) + self._reduce_s(work.tokens) + self._fixed_s(work)

    def _flops(self) -> float:
        return self.hardware.bf16_tflops * 1e12 * self.hardware.flops_efficiency * self.tensor_parallel

    def _bandwidth(self) -> float:
        return self.hardware.bandwidth_tb_s * 1e12 * self.hardware.bandwidth_efficiency * self.tensor_parallel

    def _linear_s(self, tokens: int) -> float:
        arithmetic = 2 * self.shape.linear_params * tokens / self._flops()
        return max(arithmetic, self.shape.weight_bytes / self._bandwidth())

    def _attention_s(self, work: StepWork) -> float:
        context = work.decode_context + sum(before for _, before in work.prefills)
        read = self.shape.kv_bytes_per_token * context / self._bandwidth()
        pairs = sum(new * (before + new / 2) for new, before in work.prefills)
        return read + 4 * self.shape.layers * self.shape.query_width * pairs / (0.8 * self._flops())

    def _reduce_s(self, tokens: int) -> float:
        ways = self.tensor_parallel
        if ways == 1:
            return 0.0
        sent = 2 * tokens * self.shape.width * 2 * (ways - 1) / ways
        return 2 * self.shape.layers * (9e-6 + sent / (0.7 * self.hardware.link_gb_s * 1e9 * ways))

    def _fixed_s(self, work: StepWork) -> float:
        return 25e-6 * self.shape.layers + 4.4e-6 * work.sequences + 126e-6


@dataclass(frozen=True, slots=True)
class Linear:
    """base + per prefill token + per decoding sequence + per token of context read; all in milliseconds."""

    base_ms: float = 5.0
    prefill_token_ms: float = 0.03
    decode_sequence_ms: float = 0.05
    context_token_ms: float = 0.0

    def step_s(self, work: StepWork) -> float:
        new = sum(tokens for tokens, _ in work.prefills)
        context = work.decode_context + sum(before for _, before in work.prefills)
        total = self.base_ms + self.prefill_token_ms * new + self.decode_sequence_ms * work.decodes
        return (total + self.context_token_ms * context) / 1e3


@dataclass(frozen=True, slots=True)
class Scaled:
    """Another model's times, multiplied; 0 makes every step instant."""

    model: StepModel
    factor: float

    def step_s(self, work: StepWork) -> float:
        return self.model.step_s(work) * self.factor if self.factor else 0.0


@dataclass(frozen=True, slots=True)
class Transfer:
    """Moving KV between engines: a fixed set-up, then bytes over the slower link."""

    bytes_per_token: int
    gb_per_s: float = 25.0
    setup_ms: float = 5.0
    factor: float = 1.0
    """Scales the time, as `Scaled` does for steps."""

    def seconds(self, tokens: int) -> float:
        return self.factor * (self.setup_ms / 1e3 + tokens * self.bytes_per_token / (self.gb_per_s * 1e9))
