"""What requests in flight will leave in engines' caches: known at once, so that a burst with one prefix stays together.

A prompt is marked only every `step` tokens: a chained hash at a mark stands for everything before it, so a lookup goes from
mark to mark, and a prompt of 32 k tokens costs 256 steps at most, not 2,048.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hekla.routing.prefix.presence import Lengths, Presence, Slots, runs

Mark = tuple[int, int, Sequence[int]]
"""Slot, block size in tokens, and chained block hashes."""


class InFlightCredit:
    def __init__(self, step_tokens: int) -> None:
        self._step_tokens = step_tokens
        self._presence = Presence()
        self._counts: dict[int, dict[int, int]] = {}
        """Per slot, how many requests in flight carry a mark."""

    def tokens(self, blocks: Sequence[int], block_size: int, slots: Slots) -> Lengths:
        """Per slot, how many of the prompt's tokens requests in flight bring there."""
        step = self._step(block_size)
        marks = runs(self._presence.bits.get, blocks[step - 1 :: step], slots) if self._presence.bits else None
        if marks is None:
            return runs(self._presence.bits.get, (), slots)
        return marks * (step * block_size)

    def add(self, memo: dict[str, Any], key: str, engine: str, mark: Mark) -> None:
        """Remembered in the request's memo, to be taken back as it was given."""
        slot, block_size, blocks = mark
        step = self._step(block_size)
        marks = blocks[step - 1 :: step]
        counts, bits, bit = self._counts.setdefault(slot, {}), self._presence.bits, 1 << slot
        memo.setdefault(f"{key}.credit", {}).setdefault(engine, []).append((slot, marks, counts))
        for block in marks:
            counts[block] = counts.get(block, 0) + 1
            bits[block] = bits.get(block, 0) | bit

    def take_back(self, memo: dict[str, Any], key: str, engine: str) -> None:
        given = memo.get(f"{key}.credit", {}).get(engine)
        if not given:
            return
        slot, marks, counts = given.pop()
        known: dict[int, int] = counts
        if self._counts.get(slot) is not known:
            return  # the engine was forgotten meanwhile, and the slot may be another's
        for block in marks:
            left = known.get(block, 0) - 1
            if left > 0:
                known[block] = left
            elif left == 0:
                del known[block]
                self._presence.clear(block, 1 << slot)

    def forget(self, slot: int) -> None:
        """The engine is gone; what its requests bring is not waited for."""
        for block in self._counts.pop(slot, {}):
            self._presence.clear(block, 1 << slot)

    def _step(self, block_size: int) -> int:
        return max(1, self._step_tokens // block_size)

    def check(self) -> None:
        held = {(block, slot) for slot, counts in self._counts.items() for block in counts}
        marked = {
            (block, slot)
            for block, bits in self._presence.bits.items()
            for slot in range(bits.bit_length())
            if bits >> slot & 1
        }
        assert held == marked, f"{len(held ^ marked)} credits differ"
        assert all(count > 0 for counts in self._counts.values() for count in counts.values())
