"""One engine's cache (one data-parallel rank of it) as its events tell it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from hekla.routing.prefix.batch import EVERY_TIER, TIERS, EngineHash, Removed, Stored
from hekla.routing.prefix.hashing import MASK, BlockHasher
from hekla.routing.prefix.presence import Presence

Counted = TypeVar("Counted", bound=tuple[object, ...])


@dataclass
class EventCounts:
    """Blocks, since the start."""

    stored: int = 0
    removed: int = 0
    orphans: int = 0
    """Told without their parent being known: events were lost."""
    passed_over: int = 0
    """Of cache groups that can't tell whole prefixes, or of another block size than the engine's."""
    refused: int = 0
    """Above `engine_blocks_max`."""


class Row:
    """Which blocks are held in which tier. The bits of `tiers` under this row's slot always say the same."""

    __slots__ = (
        "_bit", "_copies", "_counts", "_hasher", "_room", "_shared", "_tiers", "block_size", "group", "held", "is_complete",
        "is_usable", "slot",
    )  # fmt: skip

    def __init__(
        self, slot: int, tiers: Sequence[Presence], hasher: BlockHasher, room: int, counts: EventCounts
    ) -> None:
        self.slot, self._bit, self._tiers, self._hasher, self._room = slot, 1 << slot, tiers, hasher, room
        self._counts = counts
        self.block_size = 0
        """Tokens; 0 while unknown."""
        self.group: int | None = None
        """The cache group that is followed, of a hybrid model's."""
        self.is_complete = False
        """All that it holds has been told."""
        self.is_usable = True
        """False when all its events so far were of kinds that can't tell prefixes."""
        self.held: tuple[dict[EngineHash, int], ...] = tuple({} for _ in range(TIERS))
        """Per tier, the engine's name for a block and our hash of it."""
        self._copies: dict[tuple[int, EngineHash], int] = {}
        """Further copies: an engine may compute the same block twice at once, and tells each one's end."""
        self._shared: dict[tuple[int, int], int] = {}
        """Our hash under further names of the engine's."""

    def begin(self, *, is_complete: bool) -> None:
        """As new: the engine may have been restarted with another block size."""
        self.clear()
        self.block_size, self.group, self.is_usable, self.is_complete = 0, None, True, is_complete

    def holds_prefixes(self, event: Stored) -> bool:
        """True when the event is of the one cache group whose blocks stand for whole prefixes."""
        if not event.is_whole_prefix:
            if self.group is None and not any(self.held):
                self.is_usable = self.block_size > 0
            return False
        if not event.digests:  # what moves it to another tier names neither group nor size
            return event.group is None or event.group == self.group
        if self.block_size == 0:
            self.block_size, self.group, self.is_usable = event.block_size, event.group, True
        return event.block_size == self.block_size and event.group == self.group

    def store(self, event: Stored, root: int) -> None:
        """`root` is where the event's adapter's chains begin."""
        at: int | None = root if event.parent is None else self._find(event.parent)
        if at is None:
            self._counts.orphans += len(event.keys)
            return
        multiplier = self._hasher.multiplier
        blocks = []
        for digest in event.digests:
            at = (at * multiplier + digest) & MASK
            blocks.append(at)
        self._hold(event.tier, event.keys, blocks)

    def move(self, event: Stored) -> None:
        """Blocks told without tokens: known by name from another tier, or not at all."""
        found = [(key, block) for key in event.keys if (block := self._find(key)) is not None]
        self._counts.orphans += len(event.keys) - len(found)
        self._hold(event.tier, [key for key, _ in found], [block for _, block in found])

    def remove(self, event: Removed) -> None:
        if event.group is not None and event.group != self.group:
            return
        for tier in range(TIERS) if event.tier == EVERY_TIER else (event.tier,):
            for key in event.keys:
                self._drop(tier, key)

    def clear(self) -> None:
        for tier, held in enumerate(self.held):
            for block in set(held.values()):
                self._tiers[tier].clear(block, self._bit)
            held.clear()
        self._copies.clear()
        self._shared.clear()

    @property
    def entries(self) -> int:
        return sum(map(len, self.held))

    def _find(self, key: EngineHash) -> int | None:
        for held in self.held:
            block = held.get(key)
            if block is not None:
                return block
        return None

    def _hold(self, tier: int, keys: Sequence[EngineHash], blocks: Sequence[int]) -> None:
        held, bits, bit = self.held[tier], self._tiers[tier].bits, self._bit
        self._counts.stored += len(keys)
        old_before, new_before = 0, bit
        for key, block in zip(keys, blocks, strict=False):
            if key in held:
                self._copies[(tier, key)] = self._copies.get((tier, key), 0) + 1
                continue
            if len(held) >= self._room:
                self._counts.refused += 1
                continue
            old = bits.get(block, 0)
            if old & bit:
                self._shared[(tier, block)] = self._shared.get((tier, block), 0) + 1
            elif old is old_before:
                bits[block] = new_before
            else:
                old_before, new_before = old, old | bit if old else bit
                bits[block] = new_before
            held[key] = block

    def _drop(self, tier: int, key: EngineHash) -> None:
        held = self.held[tier]
        if key not in held:
            return
        self._counts.removed += 1
        if _less(self._copies, (tier, key)):
            return
        block = held.pop(key)
        if not _less(self._shared, (tier, block)):
            self._tiers[tier].clear(block, self._bit)


def _less(counts: dict[Counted, int], key: Counted) -> bool:
    """One less of it; False when none is counted."""
    if not counts or key not in counts:
        return False
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
    return True
