"""Paged KV memory with a prefix cache, by block names alone.

The policy is the simulated engine's (`hekla.deployments.simengine.blocks`): blank blocks are handed out first, then
the least recently released, whose content is lost; a sequence releases its last block first. To be fast, blocks that
nobody can ask for again (generated text without a known continuation) are kept as counted runs, not one by one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence


class KvCache:
    """Blocks are named by integers: equal names mean equal content *and* equal content before it."""

    def __init__(self, blocks: int, spill_blocks: int = 0) -> None:
        """`spill_blocks`: size of the CPU tier that keeps what is evicted; 0: none."""
        if blocks < 1 or spill_blocks < 0:
            raise ValueError(f"a cache needs blocks >= 1 and spill_blocks >= 0, not {blocks} and {spill_blocks}")
        self.size = blocks
        self.used = 0
        """Blocks in use by sequences and leases."""
        self.changes: list[int] = []
        """In order, since the owner last took them: a name that entered the cache, or `~name` of one that left."""
        self.evictions = 0
        self._references: dict[int, int] = {}
        self._free: OrderedDict[int, int] = OrderedDict()
        """Released blocks in order of release: name to 1, or a run's negative key to its length."""
        self._runs = 0
        self._blank = blocks
        self._spill: OrderedDict[int, None] = OrderedDict()
        self._spill_blocks = spill_blocks

    @property
    def free(self) -> int:
        return self.size - self.used

    def __contains__(self, name: int) -> bool:
        return name in self._references or name in self._free

    def match(self, names: Sequence[int], limit: int) -> int:
        """How many of the first `limit` names are cached without a gap."""
        references, free = self._references, self._free
        count = 0
        for name in names[:limit]:
            if name not in references and name not in free:
                break
            count += 1
        return count

    def match_spilled(self, names: Sequence[int], start: int, limit: int) -> int:
        """How many names from `start` on are in the CPU tier without a gap."""
        if not self._spill:
            return 0
        count = 0
        for name in names[start:limit]:
            if name not in self._spill:
                break
            count += 1
        return count

    def idle(self, names: Iterable[int]) -> int:
        """How many of these cached names no sequence holds: taking them uses up free blocks."""
        references = self._references
        return sum(1 for name in names if name not in references)

    def take(self, names: Iterable[int]) -> None:
        """Reference cached blocks."""
        references, free = self._references, self._free
        for name in names:
            count = references.get(name)
            if count is None:
                del free[name]
                references[name] = 1
                self.used += 1
            else:
                references[name] = count + 1

    def allocate(self, count: int) -> bool:
        """`count` unnamed blocks; False, and nothing changes, when there are too few."""
        if count > self.size - self.used:
            return False
        self.used += count
        if count <= self._blank:
            self._blank -= count
            return True
        count -= self._blank
        self._blank = 0
        free = self._free
        while count > 0:
            name, length = free.popitem(last=False)
            if name >= 0:
                self._evicted(name)
                count -= 1
            elif length > count:
                free[name] = length - count
                free.move_to_end(name, last=False)
                count = 0
            else:
                count -= length
        return True

    def _evicted(self, name: int) -> None:
        self.changes.append(~name)
        self.evictions += 1
        if self._spill_blocks:
            self._spill[name] = None
            self._spill.move_to_end(name)
            if len(self._spill) > self._spill_blocks:
                self._spill.popitem(last=False)

    def name(self, name: int) -> bool:
        """An unnamed block in use is full and gets its name; False when another block already has it."""
        if name in self._references or name in self._free:
            return False
        self._references[name] = 1
        self.changes.append(name)
        return True

    def release(self, names: Sequence[int], *, after: Sequence[int] = (), run: int = 0, blank: int = 0) -> None:
        """Give back a sequence's blocks.

        `names`: its references, in order; `after`: unnamed blocks that get these names now and follow them;
        `run`: full blocks that nobody can ask for; `blank`: blocks without content worth keeping.
        """
        free, references = self._free, self._references
        self._blank += blank
        self.used -= blank + run
        if run:
            self._runs -= 1
            free[self._runs] = run
        for name in reversed(after):
            self.used -= 1
            if name in references or name in free:
                self._blank += 1
            else:
                free[name] = 1
                self.changes.append(name)
        for name in reversed(names):
            left = references[name] - 1
            if left:
                references[name] = left
            else:
                del references[name]
                free[name] = 1
                self.used -= 1

    def check(self) -> None:
        """Assert the invariants."""
        assert 0 <= self.used <= self.size
        assert self._blank >= 0
        assert self._blank + sum(self._free.values()) == self.size - self.used
        assert not self._references.keys() & self._free.keys()
        assert len(self._references) <= self.used
        assert all(count > 0 for count in self._references.values())
        assert len(self._spill) <= self._spill_blocks

    def __repr__(self) -> str:
        return f"KvCache({self.used} used, {len(self._references) + len(self._free)} names, of {self.size})"
