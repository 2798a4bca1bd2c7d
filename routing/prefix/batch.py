"""A batch of KV events as the exact index takes it: an engine's own hashes are only keys, the digests are ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

EngineHash = int | bytes
"""How the engine names a block; it means something only to that engine."""

DEVICE, HOST, STORAGE = 0, 1, 2
"""Tiers, fastest first."""
TIERS = 3
EVERY_TIER = -1


class Stored(NamedTuple):
    """A run of blocks that follow one another."""

    keys: Sequence[EngineHash]
    parent: EngineHash | None
    """The block before the first; None: it begins a prompt."""
    digests: Sequence[int]
    """One for each block; none at all when the engine did not repeat the tokens of blocks it moved to another tier."""
    block_size: int
    adapter: str = ""
    tier: int = DEVICE
    group: int | None = None
    """The cache group of a hybrid model."""
    is_whole_prefix: bool = True
    """False for a kind of attention whose blocks say nothing of those before them: sliding window, state space."""


class Removed(NamedTuple):
    keys: Sequence[EngineHash]
    tier: int = DEVICE
    group: int | None = None


class Cleared(NamedTuple):
    """Nothing is cached any more, in any tier."""


Event = Stored | Removed | Cleared


class Batch(NamedTuple):
    made_s: float
    """Unix time at the engine."""
    events: Sequence[Event]
    rank: int | None = None
    """The data-parallel rank."""
