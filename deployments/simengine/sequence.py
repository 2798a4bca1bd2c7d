"""The engine's nouns: a request as it comes in, the sequence it becomes, and what comes out of a step."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from typing import Any, Literal

from hekla.deployments.simengine.blocks import Identity, block_hash
from hekla.deployments.simengine.events import Event

FinishReason = Literal["stop", "length", "abort", "error"]


@dataclass(frozen=True, slots=True)
class RemoteKv:
    """Where a decode request finds the KV another engine computed for its prompt."""

    engine_id: str
    request_id: str
    host: str
    port: int
    tokens: int
    bootstrap: str = ""
    """URL that tells host and port, when both halves run at the same time: the KV may not be there yet."""


@dataclass(frozen=True, slots=True, eq=False)
class EngineRequest:
    id: str
    prompt: Tokens[int]
    max_tokens: int
    adapter: str = ""
    """LoRA adapter's name; empty: the base model."""
    priority: int = 0
    """Lower runs first, under the priority policy."""
    cache_salt: str = ""
    seed: int = 0
    """0: greedy."""
    min_tokens: int = 0
    ignore_eos: bool = False
    stop_token_ids: frozenset[int] = frozenset()
    planned: tuple[int, ...] = ()
    """Tokens to emit in order instead of sampled ones (structured output); the answer stops after them."""
    hold_for_decode: bool = False
    """Keep the prompt's blocks when finished, under a lease, until another engine has pulled them."""
    held_as: str = ""
    """The lease's name when the other engine knows it already, and need not be told; empty: the request's id."""
    remote: RemoteKv | None = None


@dataclass(slots=True, eq=False)
class Sequence:
    request: EngineRequest
    order: int
    arrived_at: float
    tokens: list[int]
    state: int
    """The sampler's state after `tokens`."""
    identity: Identity
    hashes: list[int] = field(default_factory=list)
    """Of the full blocks in `tokens`."""
    blocks: list[int] = field(default_factory=list)
    computed: int = 0
    stored: int = 0
    """Blocks already offered to the prefix cache."""
    cached: int | None = None
    """Prompt tokens found in a cache when first scheduled; None before."""
    external: int = 0
    """Of `cached`, the tokens pulled from another engine."""
    pull_tried: bool = False
    scheduled_at: float | None = None
    first_token_at: float = 0.0
    last_token_at: float = 0.0
    preemptions: int = 0

    @property
    def prompt_tokens(self) -> int:
        return len(self.request.prompt)

    @property
    def output_tokens(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    @property
    def sort_key(self) -> tuple[int, float, int]:
        return (self.request.priority, self.arrived_at, self.order)

    def extend_hashes(self, block_size: int) -> None:
        """Hash the blocks that have become full."""
        for index in range(len(self.hashes), len(self.tokens) // block_size):
            parent = self.hashes[-1] if self.hashes else None
            chunk = self.tokens[index * block_size : (index + 1) * block_size]
            self.hashes.append(block_hash(parent, chunk, self.identity.keys(index)))


@dataclass(frozen=True, slots=True)
class RequestStats:
    """A finished request's life, in engine seconds and tokens."""

    arrived_at: float
    scheduled_at: float
    first_token_at: float
    finished_at: float
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    external_tokens: int
    max_tokens: int
    preemptions: int


@dataclass(slots=True)
class Output:
    """One token of one request, or (token None) the end of a request without one."""

    request_id: str
    token: int | None
    logprob: float = 0.0
    latency_s: float = 0.0
    """Since the request's previous token, or since its arrival for the first."""
    first: bool = False
    finish: FinishReason | None = None
    stop_token: int | None = None
    cached_tokens: int = 0
    kv_transfer_params: dict[str, Any] | None = None
    stats: RequestStats | None = None
    """With `finish`."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Pull:
    """An instruction: fetch this KV, then tell `EngineCore.pulled`; it takes `duration_s` of engine time."""

    request_id: str
    remote: RemoteKv
    tokens: int
    duration_s: float


@dataclass(slots=True)
class StepResult:
    duration_s: float = 0.0
    outputs: list[Output] = field(default_factory=list)
    """What exists `duration_s` after the step began."""
    events: list[Event] = field(default_factory=list)
    pulls: list[Pull] = field(default_factory=list)
    """To be carried out by whoever runs the core."""
    tokens: int = 0
    """Tokens computed."""
    wake_at: float | None = None
    """Nothing could run: engine time at which to step again, None for 'when something happens'."""
