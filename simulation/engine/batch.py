"""The running sequences of an engine, without touching each of them at every step.

A decoding sequence is known by two numbers: the step at which it ends (a heap) and the step, modulo the block size, at
which it needs a new block (a table). What else there is to know of it is computed when it leaves the batch.
"""

from __future__ import annotations

import heapq

from hekla.simulation.engine.cache import KvCache
from hekla.simulation.engine.sequence import Sequence

OWN_NAMES = 1 << 62
"""Names from here on are the engine's own: blocks that only a preempted sequence itself can find again."""


class Batch:
    def __init__(self, cache: KvCache, block_tokens: int) -> None:
        self.running: dict[Sequence, None] = {}
        """In order of admission."""
        self.prefilling: list[Sequence] = []
        """Those with prompt left to compute, in the same order."""
        self.adapters: dict[str, int] = {}
        """Running sequences per LoRA adapter."""
        self.steps = 0
        self.decodes = 0
        self.context = 0
        """Sum of computed tokens over decoding sequences, now."""
        self._cache, self._size = cache, block_tokens
        self._ends: list[tuple[int, int, Sequence]] = []
        self._order = 0
        self._phases = [0] * block_tokens
        self._reserved = 0
        """Blocks taken already for the next step's decodes."""
        self._names = OWN_NAMES

    def __len__(self) -> int:
        return len(self.running)

    # -- steps ---------------------------------------------------------------------------------------------------

    def growth(self, steps: int) -> int:
        """Blocks the decoding sequences need for their next `steps` steps."""
        size, phases = self._size, self._phases
        whole, rest = divmod(steps, size)
        first = self.steps % size
        last = first + rest
        part = sum(phases[first:last]) if last <= size else sum(phases[first:]) + sum(phases[: last - size])
        return self.decodes * whole + part

    def reserve(self) -> None:
        """Take the blocks of the next step's decodes."""
        growth = self.growth(1)
        taken = self._cache.allocate(growth)
        assert taken, "blocks were not made free before they were reserved"
        self._reserved = growth

    def release_reserve(self) -> None:
        self._cache.release((), blank=self._reserved)
        self._reserved = 0

    def steps_ahead(self) -> int:
        """Steps until a sequence ends or a block lacks, whichever comes first; at least 1 after `reserve`."""
        while not self._is_current(self._ends[0]):
            heapq.heappop(self._ends)
        steps = self._ends[0][0] - self.steps
        free = self._cache.free + self._reserved
        if self.growth(steps) <= free:
            return steps
        low, high = 1, steps
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.growth(middle) <= free else (low, middle - 1)
        return low

    def advance(self, steps: int) -> None:
        """The decoding sequences have made `steps` steps."""
        grown = self._cache.allocate(self.growth(steps) - self._reserved)
        assert grown, f"{steps} steps were planned without blocks for them"
        self._reserved = 0
        self.steps += steps
        self.context += self.decodes * steps

    def due(self) -> list[Sequence]:
        """Sequences that have generated all they had to, taken out of the heap."""
        done = []
        while self._ends and self._ends[0][0] <= self.steps:
            entry = heapq.heappop(self._ends)
            if self._is_current(entry):
                done.append(entry[2])
        return done

    @staticmethod
    def _is_current(entry: tuple[int, int, Sequence]) -> bool:
        return entry[2].end_step == entry[0] and entry[2].decode_from >= 0

    # -- sequences -----------------------------------------------------------------------------------------------

    def enter(self, sequence: Sequence) -> None:
        self.running[sequence] = None
        self.prefilling.append(sequence)
        adapter = sequence.request.adapter
        if adapter:
            self.adapters[adapter] = self.adapters.get(adapter, 0) + 1

    def decode(self, sequence: Sequence) -> None:
        """Its prompt is computed; from the next step on it decodes."""
        self.prefilling.remove(sequence)
        sequence.decode_from, sequence.decode_base = self.steps, sequence.computed
        sequence.end_step = self.steps + sequence.target - sequence.outputs
        self._phases[(self.steps - sequence.computed) % self._size] += 1
        self.decodes += 1
        self.context += sequence.computed
        self._order += 1
        heapq.heappush(self._ends, (sequence.end_step, self._order, sequence))

    def leave(self, sequence: Sequence) -> None:
        """Out of the batch, and brought up to date."""
        del self.running[sequence]
        self._drop_adapter(sequence.request.adapter)
        if sequence.decode_from < 0:
            self.prefilling.remove(sequence)
            return
        self._phases[(sequence.decode_from - sequence.decode_base) % self._size] -= 1
        self.decodes -= 1
        done = self.steps - sequence.decode_from
        sequence.computed = sequence.decode_base + done
        sequence.outputs += done
        sequence.tokens = sequence.computed + 1
        sequence.blocks = max(sequence.blocks, -(-sequence.computed // self._size))
        sequence.decode_from = -1
        self.context -= sequence.computed

    def _drop_adapter(self, adapter: str) -> None:
        if adapter:
            self.adapters[adapter] -= 1
            if not self.adapters[adapter]:
                del self.adapters[adapter]

    # -- blocks --------------------------------------------------------------------------------------------------

    def name_blocks(self, sequence: Sequence) -> None:
        """Full blocks of its chain enter the prefix cache."""
        full = min(sequence.computed // self._size, len(sequence.chain))
        for index in range(sequence.named, full):
            name = sequence.chain[index]
            if self._cache.name(name):
                sequence.held.append(name)
        sequence.named = max(sequence.named, full)

    def give_back(self, sequence: Sequence, *, resumable: bool = False) -> None:
        """Release all its blocks. What it generated keeps names when somebody can ask for it."""
        generated = sequence.computed // self._size - sequence.named
        after = self._names_after(sequence, generated, resumable) if generated > 0 else []
        run = max(0, generated - len(after))
        duplicates = sequence.named - len(sequence.held)
        blank = sequence.blocks - sequence.named - len(after) - run + duplicates
        self._cache.release(sequence.held, after=after, run=run, blank=blank)
        sequence.held, sequence.blocks, sequence.named, sequence.computed = [], 0, 0, 0

    def _names_after(self, sequence: Sequence, count: int, resumable: bool) -> list[int]:
        request = sequence.request
        known = [*request.blocks, *request.after][sequence.named : sequence.named + count]
        if resumable:
            while len(known) < count:
                self._names += 1
                known.append(self._names)
        sequence.chain = [*sequence.chain[: sequence.named], *known]
        return known

    def check(self) -> None:
        """Assert the invariants."""
        assert self.decodes + len(self.prefilling) == len(self.running)
        assert self.decodes == sum(self._phases)
        base = sum(item.decode_base + self.steps - item.decode_from for item in self.running if item.decode_from >= 0)
        assert base == self.context
        assert sum(self.adapters.values()) <= len(self.running)
        assert self._reserved <= self.decodes
