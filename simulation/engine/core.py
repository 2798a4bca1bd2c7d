"""Continuous batching in jumps.

The rules are vLLM's and the simulated engine's (`hekla.deployments.simengine.scheduler`): running sequences first, one
token per decode and a chunk for an unfinished prompt, then waiting ones first come first served, within the budget of
tokens, sequences and blocks; the latest running sequence is preempted when blocks run out, and computes anew.

What makes it fast: while nothing arrives, ends or runs out of memory the batch does not change, so all steps until then
are one event (`Pace`). An arrival in the middle cuts the jump at the end of the step in which it falls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Names
from typing import Protocol

from hekla.simulation.engine.adapters import AdapterSlots
from hekla.simulation.engine.batch import Batch
from hekla.simulation.engine.cache import KvCache
from hekla.simulation.engine.pace import Pace
from hekla.simulation.engine.sequence import Remote, Sequence
from hekla.simulation.engine.spec import EngineSpec
from hekla.simulation.loop import Event, EventLoop
from hekla.simulation.request import SimRequest

PROGRESS_STEPS = 64
"""How often a listener hears of decoding: about every second."""


class Listener(Protocol):
    """Told of what an engine does, at the virtual time at which it has done it."""

    def first_token(self, engine: Engine, sequence: Sequence) -> None: ...

    def finished(self, engine: Engine, sequence: Sequence) -> None: ...

    def cache_changed(self, engine: Engine, changes: Names[int]) -> None:
        """Block names that entered the prefix cache, and `~name` of those that left it, in order."""

    def progressed(self, engine: Engine) -> None:
        """Another `PROGRESS_STEPS` steps or more have been made since the last time."""


class Engine:
    def __init__(
        self, key: str, spec: EngineSpec, loop: EventLoop, listener: Listener, pace: Pace | None = None
    ) -> None:
        """`pace`: may be shared among engines of one spec."""
        self.key, self.spec = key, spec
        self.cache = KvCache(spec.blocks, spec.spill_blocks)
        self.batch = Batch(self.cache, spec.block_tokens)
        self.waiting: deque[Sequence] = deque()
        self.loading: dict[Sequence, Event] = {}
        """Hold blocks and wait for KV from elsewhere."""
        self.adapters = AdapterSlots(spec.limits.max_loras)
        self.preemptions = 0
        self.is_stopped = False
        self._loop, self._listener, self._size = loop, listener, spec.block_tokens
        self._pace = pace or Pace(spec.model)
        self._chunks: list[tuple[Sequence, int]] = []
        """Prompt chunks of the step in progress."""
        self._jump = 0
        """Steps in progress; 0: none."""
        self._began_s = 0.0
        self._event: Event | None = None
        self._leases: dict[Sequence, float] = {}

    # -- from outside --------------------------------------------------------------------------------------------

    def submit(
        self, request: SimRequest, *, output_tokens: int = 0, hold: bool = False, remote: Remote | None = None
    ) -> Sequence:
        """Queue a request. `output_tokens`: end after so many (0: the request's own); `hold`: lease its blocks then.

        Raises ValueError for a request that does not fit the engine's memory, or an adapter where LoRA is off.
        """
        if request.adapter and not self.adapters.slots:
            raise ValueError(f"request {request.id} wants the adapter {request.adapter!r}; {self.key} has max_loras 0")
        self.spec.check_fits(request)
        target = output_tokens or request.output_tokens
        now, chain = self._loop.monotonic(), list(request.blocks)
        sequence = Sequence(request, now, request.prompt_tokens, target, chain, hold=hold, remote=remote)
        is_next = remote is not None or (not self.waiting and len(self.batch) < self.spec.limits.max_num_seqs)
        self.waiting.append(sequence)
        if is_next or not self._jump:
            self._nudge()
        return sequence

    def abort(self, sequence: Sequence) -> None:
        """Drop a request wherever it is; nobody is told."""
        if sequence.ended:
            return
        self._settle()
        sequence.ended = True
        if sequence in self.batch.running:
            self.batch.release_reserve()
            self.batch.leave(sequence)
        elif sequence in self.loading:
            self.loading.pop(sequence).cancel()
        else:
            self.waiting.remove(sequence)
        self.batch.give_back(sequence)
        self._chunks = [(item, new) for item, new in self._chunks if item is not sequence]
        if self._jump and not self.batch.decodes and not self._chunks:
            self._stop_jump()
        self._nudge()

    def stop(self) -> list[Sequence]:
        """The engine dies: what was on it, in order of arrival. It takes no more."""
        self._settle()
        left = [*self.batch.running, *self.loading, *self.waiting]
        for sequence in list(self.batch.running):
            self.batch.leave(sequence)
        for event in self.loading.values():
            event.cancel()
        self._stop_jump()
        self.is_stopped = True
        self.batch = Batch(self.cache, self._size)
        self.loading = {}
        self.waiting.clear()
        for sequence in left:
            sequence.ended = True
        return sorted(left, key=lambda sequence: (sequence.arrived_s, sequence.request.id))

    def collect(self, sequence: Sequence) -> bool:
        """Another engine has pulled this prefill's KV: free its blocks. False when the lease has run out."""
        if self._leases.pop(sequence, None) is None:
            return False
        self.batch.give_back(sequence)
        self._nudge()
        return True

    @property
    def usage(self) -> float:
        """Share of KV blocks in use."""
        return self.cache.used / self.cache.size

    @property
    def load(self) -> tuple[int, int]:
        """Requests running, and waiting."""
        return len(self.batch), len(self.waiting) + len(self.loading)

    def check(self) -> None:
        """Assert the invariants of all parts."""
        self.cache.check()
        self.batch.check()
        if not self.batch.running and not self.waiting and not self.loading and not self._leases:
            assert self.cache.used == 0, f"{self.key} is idle and holds {self.cache.used} blocks"

    # -- jumps ---------------------------------------------------------------------------------------------------

    def _nudge(self) -> None:
        """Something has changed: begin now, or after the step in which now falls."""
        now = self._loop.monotonic()
        if self._jump:
            self._cut(now)
        elif not self.is_stopped:
            if self._event is not None:
                self._event.cancel()
            self._event = self._loop.at(now, self._begin)

    def _cut(self, now: float) -> None:
        if self._chunks or self._jump <= 1:
            return
        batch = self.batch
        steps = self._pace.steps_within(batch.decodes, batch.context, now - self._began_s)
        if steps < self._jump:
            self._plan(steps, self._pace.decodes_s(batch.decodes, batch.context, steps))

    def _settle(self) -> None:
        """Bring a jump of decodes up to its last whole step, before the batch is changed from outside."""
        if self._chunks or not self._jump:
            return
        batch, elapsed = self.batch, self._loop.monotonic() - self._began_s
        done = min(self._jump, self._pace.steps_within(batch.decodes, batch.context, elapsed)) - 1
        if done > 0:
            self._began_s += self._pace.decodes_s(batch.decodes, batch.context, done)
            batch.advance(done)
            self._jump -= done

    def _plan(self, steps: int, seconds: float) -> None:
        if self._event is not None:
            self._event.cancel()
        self._jump = steps
        self._event = self._loop.at(self._began_s + seconds, self._finish)

    def _stop_jump(self) -> None:
        if self._event is not None:
            self._event.cancel()
        self._event, self._jump, self._chunks = None, 0, []

    def _begin(self) -> None:
        """Choose the work of the next step or steps."""
        self._event = None
        self._began_s = now = self._loop.monotonic()
        self._expire_leases(now)
        self._start_pulls()
        batch = self.batch
        preempted = self._make_room()
        delay_s = 0.0
        if self.waiting and not (preempted and batch.running):
            budget = self.spec.limits.max_num_batched_tokens - batch.decodes - sum(new for _, new in self._chunks)
            delay_s = self._admit(budget, now)
        if self._chunks:
            work = [(new, sequence.computed) for sequence, new in self._chunks]
            self._plan(1, self._pace.mixed_s(batch.decodes, batch.context, work) + delay_s)
        elif batch.decodes:
            steps = batch.steps_ahead()
            self._plan(steps, self._pace.decodes_s(batch.decodes, batch.context, steps))
        elif self._leases:
            self._event = self._loop.at(min(self._leases.values()), self._begin)

    def _finish(self) -> None:
        """The planned steps are done."""
        jump, chunks = self._jump, self._chunks
        self._event, self._jump, self._chunks = None, 0, []
        before = self.batch.steps
        self.batch.advance(jump)
        for sequence in self.batch.due():
            self._end(sequence)
        for sequence, new in chunks:
            self._computed(sequence, new)
        if self.cache.changes:
            changes, self.cache.changes = self.cache.changes, []
            self._listener.cache_changed(self, changes)
        if before // PROGRESS_STEPS != self.batch.steps // PROGRESS_STEPS:
            self._listener.progressed(self)
        self._nudge()

    def _computed(self, sequence: Sequence, new: int) -> None:
        """A prompt chunk is done; with the last one comes a token."""
        sequence.computed += new
        self.batch.name_blocks(sequence)
        if sequence.computed < sequence.tokens:
            return
        sequence.tokens += 1
        sequence.outputs += 1
        if sequence.first_s < 0:
            sequence.first_s = self._loop.monotonic()
            self._listener.first_token(self, sequence)
        if sequence.ended:
            return
        if sequence.outputs >= sequence.target:
            self._end(sequence)
        else:
            self.batch.decode(sequence)

    def _end(self, sequence: Sequence) -> None:
        self.batch.leave(sequence)
        sequence.ended = True
        sequence.finished_s = self._loop.monotonic()
        if sequence.hold:
            self._leases[sequence] = sequence.finished_s + self.spec.lease_s
        else:
            self.batch.give_back(sequence)
        self._listener.finished(self, sequence)

    # -- who is computed -----------------------------------------------------------------------------------------

    def _make_room(self) -> bool:
        """Blocks for what runs, the latest of it preempted while they do not suffice; whether any was."""
        preempted = False
        while True:
            need = self._plan_chunks() + self.batch.growth(1)
            if need <= self.cache.free:
                break
            preempted = True
            self._preempt(next(reversed(self.batch.running)))
        self.batch.reserve()
        for sequence, new in self._chunks:
            self._grow(sequence, new)
        return preempted

    def _plan_chunks(self) -> int:
        """Share the step's budget among unfinished prompts; the blocks that takes."""
        budget, need, self._chunks = self.spec.limits.max_num_batched_tokens - self.batch.decodes, 0, []
        for sequence in self.batch.prefilling:
            new = min(sequence.tokens - sequence.computed, budget)
            if new > 0:
                self._chunks.append((sequence, new))
                budget -= new
                need += max(0, -(-(sequence.computed + new) // self._size) - sequence.blocks)
        return need

    def _grow(self, sequence: Sequence, new: int) -> bool:
        need = max(0, -(-(sequence.computed + new) // self._size) - sequence.blocks)
        if not self.cache.allocate(need):
            return False
        sequence.blocks += need
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.batch.leave(sequence)
        self.batch.give_back(sequence, resumable=True)
        sequence.preemptions += 1
        self.preemptions += 1
        self.waiting.appendleft(sequence)

    def _admit(self, budget: int, now: float) -> float:
        """Start waiting sequences; seconds the step is longer for adapters that have to be fetched."""
        delay_s, limits, skipped = 0.0, self.spec.limits, []
        while self.waiting and budget > 0 and len(self.batch) < limits.max_num_seqs:
            sequence = self.waiting[0]
            if not self.adapters.fits(sequence.request.adapter, self.batch.adapters):
                skipped.append(self.waiting.popleft())
                continue
            if not self._take_prefix(sequence):
                if sequence in self.loading or self._reclaim():
                    continue
                break
            new = min(sequence.tokens - sequence.computed, budget)
            if not self._grow(sequence, new):
                self.batch.give_back(sequence)
                if self._reclaim():
                    continue
                break
            self.waiting.popleft()
            self._start(sequence, now)
            if self.adapters.use(sequence.request.adapter, self.batch.adapters):
                delay_s += self.spec.adapter_load_s
            self._chunks.append((sequence, new))
            budget -= new
        self.waiting.extendleft(reversed(skipped))
        return delay_s

    def _start(self, sequence: Sequence, now: float) -> None:
        if sequence.cached < 0:
            sequence.cached, sequence.scheduled_s = sequence.computed, now
        self.batch.enter(sequence)

    def _take_prefix(self, sequence: Sequence, reserve_tokens: int = 0) -> bool:
        """Take the longest cached prefix, and blocks for `reserve_tokens` in all; False if they don't fit.

        At least one token is left to compute. A prefix that goes on in the CPU tier is fetched first: also False.
        """
        if sequence.blocks:
            return True
        chain, cache, size = sequence.chain, self.cache, self._size
        limit = min(len(chain), (sequence.tokens - 1) // size)
        found = cache.match(chain, limit)
        spilled = 0 if reserve_tokens else cache.match_spilled(chain, found, limit)
        names = chain[:found]
        need = max(1, spilled, -(-reserve_tokens // size) - found)
        if need > cache.free - cache.idle(names):
            return False
        cache.take(names)
        sequence.held, sequence.blocks, sequence.named, sequence.computed = names, found, found, found * size
        if reserve_tokens or spilled:
            cache.allocate(max(need if spilled else 0, -(-reserve_tokens // size) - found, 0))
            sequence.blocks = max(found + spilled, -(-reserve_tokens // size))
        if spilled:
            self.waiting.remove(sequence)
            self._load(sequence, spilled * size, self.spec.restore.seconds(spilled * size))
        return not spilled

    def _reclaim(self) -> bool:
        """Nothing runs and the head lacks blocks: KV fetched for the last in the queue is given up, or all would wait."""
        if self.batch.running:
            return False
        for sequence in reversed(self.waiting):
            if sequence.blocks and sequence is not self.waiting[0]:
                self.batch.give_back(sequence)
                return True
        return False

    # -- KV from elsewhere ---------------------------------------------------------------------------------------

    def _start_pulls(self) -> None:
        """Reserve blocks for waiting prompts whose KV lies on another engine, first come first served."""
        for sequence in [item for item in self.waiting if item.remote and not item.pull_tried]:
            remote = sequence.remote
            assert remote is not None
            if not self._take_prefix(sequence, reserve_tokens=sequence.request.prompt_tokens):
                return
            sequence.pull_tried = True
            wanted = max(0, min(remote.tokens, sequence.request.prompt_tokens - 1) - sequence.computed)
            self.waiting.remove(sequence)
            self._load(sequence, wanted, self.spec.transfer.seconds(wanted) if wanted else 0.0)

    def _load(self, sequence: Sequence, tokens: int, seconds: float) -> None:
        self.loading[sequence] = self._loop.after(seconds, lambda: self._loaded(sequence, tokens))

    def _loaded(self, sequence: Sequence, tokens: int) -> None:
        del self.loading[sequence]
        remote = sequence.remote
        if remote is not None and sequence.pull_tried and not remote.collect(remote.sequence):
            self.batch.give_back(sequence)
        else:
            sequence.computed += tokens
            sequence.pulled += tokens
            self.batch.name_blocks(sequence)
        self.waiting.appendleft(sequence)
        self._nudge()

    def _expire_leases(self, now: float) -> None:
        for sequence in [item for item, until in self._leases.items() if until <= now]:
            del self._leases[sequence]
            self.batch.give_back(sequence)
