"""Continuous batching: which sequences a step computes, and how many tokens of each.

Running sequences go first, one token for a decode and a chunk for an unfinished prompt; then waiting ones, first come
first served (or by priority), while the token budget, the sequence limit, the adapter slots and KV blocks last. A running
sequence that finds no block evicts the latest (or least urgent) running one, which loses its blocks, returns to the
head of the queue and computes everything anew: vLLM's policy.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, deque
from dataclasses import dataclass
from typing import Literal

from hekla.deployments.simengine.blocks import BlockPool
from hekla.deployments.simengine.sequence import Sequence

Policy = Literal["fcfs", "priority"]


@dataclass(frozen=True, slots=True)
class Limits:
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_model_len: int = 32_768
    max_loras: int = 0
    """Adapters one step can mix; 0: adapters are off."""
    long_prefill_tokens: int = 0
    """Longest chunk of one prompt; 0: only the budget limits it."""


@dataclass(slots=True)
class Share:
    """Part of a step: `new` tokens of a sequence after `before` computed ones."""

    sequence: Sequence
    new: int
    before: int


class Scheduler:
    def __init__(self, limits: Limits, pool: BlockPool, policy: Policy = "fcfs") -> None:
        if pool.size * pool.block_size < limits.max_model_len:
            raise ValueError(
                f"max_model_len: {limits.max_model_len} tokens do not fit the KV cache of {pool.size * pool.block_size} "
                "tokens; lower --max-model-len or raise --num-gpu-blocks-override"
            )
        self.limits = limits
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()
        self.pulling: list[Sequence] = []
        """Hold blocks and wait for another engine's KV."""
        self.preemptions = 0
        self._pool = pool
        self._policy = policy

    def enqueue(self, sequence: Sequence) -> None:
        if self._policy == "fcfs":
            self.waiting.append(sequence)
            return
        queue = list(self.waiting)
        insort(queue, sequence, key=lambda item: item.sort_key)
        self.waiting = deque(queue)

    def requeue(self, sequence: Sequence) -> None:
        """Back to the head of the queue, or to its place under the priority policy."""
        if self._policy == "fcfs":
            self.waiting.appendleft(sequence)
        else:
            self.enqueue(sequence)

    def schedule(self) -> list[Share]:
        """Choose the step's work and take its blocks; `computed` is advanced by `commit`."""
        budget = self.limits.max_num_batched_tokens
        shares, preempted = self._schedule_running(budget)
        if self.waiting and not (preempted and shares):
            shares += self._schedule_waiting(budget - sum(share.new for share in shares))
        return shares

    def _schedule_running(self, budget: int) -> tuple[list[Share], bool]:
        shares: list[Share] = []
        preempted = False
        index = 0
        while index < len(self.running) and budget > 0:
            sequence = self.running[index]
            new = self._chunk(sequence, budget)
            while not self._grow(sequence, new):
                preempted = True
                victim = self._victim()
                shares = [share for share in shares if share.sequence is not victim]
                index -= self.running.index(victim) < index
                self._preempt(victim)
                if victim is sequence:
                    return shares, True
            shares.append(Share(sequence, new, sequence.computed))
            index += 1
            budget = (
                self.limits.max_num_batched_tokens - sum(share.new for share in shares) if preempted else budget - new
            )
        return shares, preempted

    def _chunk(self, sequence: Sequence, budget: int) -> int:
        new = min(len(sequence.tokens) - sequence.computed, budget)
        longest = self.limits.long_prefill_tokens
        return min(new, longest) if longest else new

    def _grow(self, sequence: Sequence, new: int) -> bool:
        needed = -(-(sequence.computed + new) // self._pool.block_size) - len(sequence.blocks)
        if needed <= 0:
            return True
        blocks = self._pool.allocate(needed)
        if blocks is None:
            return False
        sequence.blocks += blocks
        return True

    def _victim(self) -> Sequence:
        if self._policy == "priority":
            return max(self.running, key=lambda item: item.sort_key)
        return self.running[-1]

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.forget(sequence)
        sequence.preemptions += 1
        self.preemptions += 1
        self.requeue(sequence)

    def forget(self, sequence: Sequence) -> None:
        """Give back a sequence's blocks; it computes from the start if it runs again."""
        self._pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.computed = sequence.stored = 0

    def _schedule_waiting(self, budget: int) -> list[Share]:
        shares: list[Share] = []
        adapters = Counter(item.request.adapter for item in self.running if item.request.adapter)
        skipped: list[Sequence] = []
        while self.waiting and budget > 0 and len(self.running) < self.limits.max_num_seqs:
            sequence = self.waiting[0]
            adapter = sequence.request.adapter
            if adapter and adapter not in adapters and len(adapters) >= self.limits.max_loras:
                skipped.append(self.waiting.popleft())
                continue
            if not self.admit_prefix(sequence):
                if self._reclaim():
                    continue
                break
            new = self._chunk(sequence, budget)
            if not self._grow(sequence, new):
                if self._reclaim():
                    continue
                self.forget(sequence)
                break
            self.waiting.popleft()
            self.running.append(sequence)
            if adapter:
                adapters[adapter] += 1
            shares.append(Share(sequence, new, sequence.computed))
            budget -= new
        self.waiting.extendleft(reversed(skipped))
        return shares

    def _reclaim(self) -> bool:
        """Nothing runs and the head lacks blocks: KV pulled for the last in the queue is given up, or all would wait."""
        if self.running:
            return False
        for sequence in reversed(self.waiting):
            if sequence.blocks and sequence is not self.waiting[0]:
                self.forget(sequence)
                return True
        return False

    def admit_prefix(self, sequence: Sequence, reserve_tokens: int = 0) -> bool:
        """Take the longest cached prefix, and blocks for `reserve_tokens` in all; False if they don't fit.

        At least one token is left to compute: its output is the next token.
        """
        if sequence.blocks:
            return True
        size = self._pool.block_size
        sequence.extend_hashes(size)
        found = self._pool.match(sequence.hashes[: (len(sequence.tokens) - 1) // size])
        needed = max(1, -(-reserve_tokens // size) - len(found))
        if needed > self._pool.free_after(found):
            return False
        self._pool.take(found)
        sequence.blocks = list(found)
        sequence.computed = len(found) * size
        sequence.stored = len(found)
        if reserve_tokens > sequence.computed:
            sequence.blocks += self._pool.allocate(-(-reserve_tokens // size) - len(found)) or []
        return True

    def commit(self, share: Share) -> None:
        """The step computed its share: full blocks enter the prefix cache."""
        sequence = share.sequence
        sequence.computed = share.before + share.new
        self.store(sequence)

    def store(self, sequence: Sequence) -> None:
        size = self._pool.block_size
        full = sequence.computed // size
        if full > sequence.stored:
            sequence.extend_hashes(size)
            hashes = sequence.hashes[:full]
            self._pool.store(sequence.blocks, hashes, sequence.stored, sequence.tokens, sequence.identity)
            sequence.stored = full

    def discard(self, sequence: Sequence) -> None:
        """Take a sequence out of whichever queue holds it; its blocks stay its own."""
        for queue in (self.running, self.waiting, self.pulling):
            if sequence in queue:
                queue.remove(sequence)
                return

    def check(self) -> None:
        """Assert the scheduler's invariants."""
        assert len(self.running) <= self.limits.max_num_seqs
        size = self._pool.block_size
        for sequence in self.running:
            assert len(sequence.blocks) * size >= sequence.computed
            assert sequence.computed <= len(sequence.tokens) <= self.limits.max_model_len
        assert not any(item.blocks for item in self.waiting if not item.pull_tried)
        assert all(item.blocks for item in self.pulling)
