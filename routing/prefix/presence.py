"""Which engines hold which block, as one bit set per block; and how far along a prompt each goes.

A bit set is a Python integer with one bit per slot (an engine's cache). A lookup walks the prompt's blocks and keeps the
set of slots that have held every block so far: one dictionary lookup and one AND per block, whatever the number of
engines. Nothing is skipped on the way, so a hole in an engine's cache ends its run there. Blocks that came together
share the same integer object: then even the AND is left out, and many blocks cost the memory of one set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Lengths = npt.NDArray[np.int64]
_DENSE = 24
"""From this many slots on, reading the whole set at once is faster than bit by bit."""


class Slots:
    """Numbers for engines' caches, small and used again."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self.count = 0
        """Slots ever given: all numbers are below."""
        self.mask = 0
        """The slots in use."""
        self.changes = 0
        """Counts the takings and the givings back: what is known of slots holds until then."""

    def take(self) -> int:
        if self._free:
            slot = self._free.pop()
        else:
            slot, self.count = self.count, self.count + 1
        self.mask |= 1 << slot
        self.changes += 1
        return slot

    def free(self, slot: int) -> None:
        """No block may be marked with it any more."""
        self.mask &= ~(1 << slot)
        self.changes += 1
        self._free.append(slot)


class Presence:
    """Block hash to the slots that hold it."""

    __slots__ = ("bits",)

    def __init__(self) -> None:
        self.bits: dict[int, int] = {}

    def clear(self, block: int, bit: int) -> None:
        """The slot with this bit does not hold the block any more."""
        left = self.bits[block] & ~bit
        if left:
            self.bits[block] = left
        else:
            del self.bits[block]

    def __len__(self) -> int:
        return len(self.bits)


def runs(bits_of: Callable[[int, int], int], blocks: Sequence[int], slots: Slots) -> Lengths:
    """For each slot, how many of the first `blocks` it holds without a gap; one zero more at the end, for no slot.

    `bits_of(block, default)` gives a block's slots.
    """
    lengths = np.zeros(slots.count + 1, np.int64)
    alive, last = slots.mask, -1
    for i, block in enumerate(blocks):
        bits = bits_of(block, 0)
        if bits is last:
            continue
        last, left = bits, alive & bits
        if left != alive:
            if i:
                _set(lengths, alive & ~left, i)
            if not left:
                return lengths
            alive = left
    _set(lengths, alive, len(blocks))
    return lengths


def _set(lengths: Lengths, slots: int, value: int) -> None:
    if slots.bit_count() >= _DENSE:
        raw = np.frombuffer(slots.to_bytes((slots.bit_length() + 7) // 8, "little"), np.uint8)
        lengths[np.flatnonzero(np.unpackbits(raw, bitorder="little"))] = value
        return
    while slots:
        lowest = slots & -slots
        lengths[lowest.bit_length() - 1] = value
        slots ^= lowest
