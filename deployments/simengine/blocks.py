"""Paged KV memory with a prefix cache.

Every block is in one of three states: never used, in use (referenced), or free but still holding cached tokens. The
free ones form a queue in order of release; taking a block for new tokens takes a never-used one first, then the
least recently released, whose cached content is lost (an event says so). A request releases its blocks last first, so
that the tail of a prefix is evicted before its head.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from hekla.deployments.simengine.events import AllBlocksCleared, BlockRemoved, BlockStored, Event

MEDIUM = "GPU"


def block_hash(parent: int | None, tokens: Sequence[int], extra_keys: tuple[str, ...] = ()) -> int:
    """64 bits that name a full block and all before it; `extra_keys` (adapter, cache salt) separate equal tokens."""
    digest = blake2b(array("I", tokens).tobytes(), digest_size=8, key=(parent or 0).to_bytes(8, "big"))
    for key in extra_keys:
        digest.update(b"\0" + key.encode())
    return int.from_bytes(digest.digest(), "big")


@dataclass(frozen=True, slots=True)
class Identity:
    """What besides tokens tells one request's blocks from another's."""

    adapter: str = ""
    cache_salt: str = ""

    def keys(self, block_index: int) -> tuple[str, ...]:
        """The adapter counts in every block, the salt in the first, from where the chain carries it on."""
        salt = (self.cache_salt,) if self.cache_salt and block_index == 0 else ()
        return (self.adapter, *salt) if self.adapter else salt


class BlockPool:
    def __init__(self, blocks: int, block_size: int, *, caching: bool = True) -> None:
        if blocks < 1 or block_size < 1:
            raise ValueError(f"a block pool needs blocks >= 1 and block_size >= 1, not {blocks} and {block_size}")
        self.size = blocks
        self.block_size = block_size
        self._caching = caching
        self._fresh = 0
        self._references: dict[int, int] = {}
        self._free: OrderedDict[int, None] = OrderedDict()
        self._block_of: dict[int, int] = {}
        self._hash_of: dict[int, int] = {}
        self._events: list[Event] = []

    @property
    def free(self) -> int:
        """Blocks that `allocate` could hand out."""
        return self.size - len(self._references)

    @property
    def usage(self) -> float:
        return len(self._references) / self.size

    def match(self, hashes: Sequence[int]) -> list[int]:
        """The blocks of the longest cached prefix; takes no reference."""
        found: list[int] = []
        block_of = self._block_of
        for value in hashes:
            block = block_of.get(value)
            if block is None:
                break
            found.append(block)
        return found

    def free_after(self, blocks: Sequence[int]) -> int:
        """Blocks left to allocate once `blocks` are taken."""
        references = self._references
        return self.free - sum(1 for block in blocks if block not in references)

    def take(self, blocks: Sequence[int]) -> None:
        """Reference cached blocks again."""
        for block in blocks:
            self._references[block] = self._references.get(block, 0) + 1
            self._free.pop(block, None)

    def allocate(self, count: int) -> list[int] | None:
        """`count` blocks for new tokens, or None (and nothing changes) when there are too few."""
        if count > self.free:
            return None
        taken: list[int] = []
        for _ in range(count):
            if self._fresh < self.size:
                block = self._fresh
                self._fresh += 1
            else:
                block, _ = self._free.popitem(last=False)
                self._forget(block)
            self._references[block] = 1
            taken.append(block)
        return taken

    def _forget(self, block: int) -> None:
        value = self._hash_of.pop(block, None)
        if value is not None:
            del self._block_of[value]
            self._events.append(BlockRemoved([value], MEDIUM))

    def store(
        self, blocks: Sequence[int], hashes: Sequence[int], first: int, tokens: Sequence[int], who: Identity
    ) -> None:
        """Blocks `first`… of a sequence are full: remember them. `blocks`, `hashes`, `tokens` are the whole sequence's."""
        if not self._caching:
            return
        fresh: list[int] = []
        size = self.block_size
        for index in range(first, len(hashes)):
            if hashes[index] in self._block_of:
                self._announce(hashes, fresh, tokens, who)
                fresh = []
                continue
            self._block_of[hashes[index]] = blocks[index]
            self._hash_of[blocks[index]] = hashes[index]
            fresh.append(index)
        self._announce(hashes, fresh, tokens, who)
        assert len(tokens) >= len(hashes) * size

    def _announce(self, hashes: Sequence[int], fresh: Sequence[int], tokens: Sequence[int], who: Identity) -> None:
        """One event for a run of neighbouring blocks."""
        if not fresh:
            return
        start, end, size = fresh[0], fresh[-1] + 1, self.block_size
        keys = [list(who.keys(index)) or None for index in fresh]
        self._events.append(
            BlockStored(
                list(hashes[start:end]),
                hashes[start - 1] if start else None,
                list(tokens[start * size : end * size]),
                size,
                None,
                MEDIUM,
                who.adapter or None,
                extra_keys=keys if any(keys) else None,
            )
        )

    def release(self, blocks: Sequence[int]) -> None:
        """Give back one reference to each block of a sequence, in the sequence's order."""
        for block in reversed(blocks):
            left = self._references[block] - 1
            if left:
                self._references[block] = left
            else:
                del self._references[block]
                self._free[block] = None
                if block not in self._hash_of:
                    self._free.move_to_end(block, last=False)

    def clear(self) -> bool:
        """Forget all cached content; False, and nothing happens, while any block is in use."""
        if self._references:
            return False
        self._block_of.clear()
        self._hash_of.clear()
        self._events.append(AllBlocksCleared())
        return True

    def drain_events(self) -> list[Event]:
        """Events since the last call, in order."""
        events, self._events = self._events, []
        return events

    def cached_hashes(self) -> frozenset[int]:
        return frozenset(self._block_of)

    def check(self) -> None:
        """Assert the pool's invariants."""
        assert len(self._references) + len(self._free) == self._fresh <= self.size
        assert not self._references.keys() & self._free.keys()
        assert all(count > 0 for count in self._references.values())
        assert len(self._block_of) == len(self._hash_of)
        assert all(self._hash_of[block] == value for value, block in self._block_of.items())

    def __repr__(self) -> str:
        return f"BlockPool({len(self._references)} used, {len(self._block_of)} cached, of {self.size})"
