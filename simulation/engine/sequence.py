"""One request on one engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hekla.simulation.request import SimRequest


@dataclass(slots=True, eq=False)
class Sequence:
    request: SimRequest
    arrived_s: float
    tokens: int
    """Prompt and generated tokens that exist."""
    target: int
    """Generated tokens after which it ends."""
    chain: list[int]
    """Names of its blocks as far as they have any."""
    outputs: int = 0
    computed: int = 0
    """Tokens whose KV is on the engine, as of when it was last looked at: decodes are brought up to date lazily."""
    held: list[int] = field(default_factory=list)
    """Named blocks it references."""
    blocks: int = 0
    """Blocks it has, named or not."""
    named: int = 0
    """Blocks of the chain already offered to the cache."""
    decode_from: int = -1
    """Engine step at which it began to decode; -1: it does not."""
    decode_base: int = 0
    """`computed` at that step."""
    end_step: int = -1
    """Engine step at which it will have generated all."""
    cached: int = -1
    """Prompt tokens found in the cache when first scheduled; -1 before."""
    pulled: int = 0
    """Of `cached`, tokens that came from another engine or tier."""
    pull_tried: bool = False
    hold: bool = False
    """Keep its blocks under a lease when it ends (prefill for another engine)."""
    scheduled_s: float = -1.0
    first_s: float = -1.0
    finished_s: float = -1.0
    preemptions: int = 0
    ended: bool = False
    remote: Remote | None = None

    @property
    def is_prefilling(self) -> bool:
        return self.decode_from < 0


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a decode request finds its prompt's KV."""

    sequence: Sequence
    """The prefill, whose blocks are under a lease."""
    tokens: int
    collect: Callable[[Sequence], bool]
    """Frees the lease once the KV has been pulled; false when it has run out before."""
