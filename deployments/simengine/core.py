"""The engine without a clock or a socket: `add` requests, `step` to compute, `abort` to drop.

`now` is the engine's time in seconds, on any scale that grows. A step's outputs exist `duration_s` after its `now`; who
runs the core waits that long (or, in a simulation, moves its clock) before the next step. The same inputs give the
same outputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from hekla.deployments.simengine.blocks import BlockPool, Identity
from hekla.deployments.simengine.leases import Leases
from hekla.deployments.simengine.sampler import Sampler
from hekla.deployments.simengine.scheduler import Limits, Policy, Scheduler, Share
from hekla.deployments.simengine.sequence import (
    EngineRequest,
    FinishReason,
    Output,
    Pull,
    RequestStats,
    Sequence,
    StepResult,
)
from hekla.deployments.simengine.steps import StepModel, StepWork, Transfer
from hekla.deployments.simengine.tokens import EOS


@dataclass(frozen=True, slots=True)
class CoreConfig:
    model: str
    blocks: int
    block_size: int = 16
    limits: Limits = field(default_factory=Limits)
    policy: Policy = "fcfs"
    prefix_caching: bool = True
    mean_output_tokens: float = 128.0
    lease_s: float = 30.0
    transfer: Transfer = field(default_factory=lambda: Transfer(131_072))
    kv_load_failure: Literal["recompute", "fail"] = "fail"
    """What a decode request does when its remote KV can't be had."""
    engine_id: str = "simengine-0"
    side_channel_host: str = ""
    side_channel_port: int = 0
    tensor_parallel: int = 1


@dataclass(slots=True)
class Counters:
    """Totals since the start; tokens unless named otherwise."""

    prefix_queries: int = 0
    prefix_hits: int = 0
    external_queries: int = 0
    external_hits: int = 0
    prompt_tokens: int = 0
    prompt_tokens_computed: int = 0
    generation_tokens: int = 0
    transfers: int = 0
    transfer_failures: int = 0
    transfer_bytes: int = 0
    rejected: int = 0
    """Requests refused because the engine was full."""


class EngineCore:
    def __init__(self, config: CoreConfig, step_model: StepModel) -> None:
        self.config = config
        self.pool = BlockPool(config.blocks, config.block_size, caching=config.prefix_caching)
        self.scheduler = Scheduler(config.limits, self.pool, config.policy)
        self.leases = Leases(self.pool, config.lease_s)
        self.counters = Counters()
        self._model = step_model
        self._sampler = Sampler(config.model, config.mean_output_tokens)
        self._sequences: dict[str, Sequence] = {}
        self._order = 0
        self._late: list[Output] = []

    def add(self, request: EngineRequest, now: float) -> None:
        """Queue a request. Raises ValueError for an id in use or a prompt that does not fit the model."""
        limit = self.config.limits.max_model_len
        if request.id in self._sequences:
            raise ValueError(f"request id {request.id!r} is in use")
        if not 0 < len(request.prompt) < limit or request.max_tokens < 1:
            raise ValueError(
                f"a request needs 1 to {limit - 1} prompt tokens and max_tokens >= 1, "
                f"not {len(request.prompt)} and {request.max_tokens}"
            )
        self._order += 1
        sequence = Sequence(
            request,
            self._order,
            now,
            list(request.prompt),
            self._sampler.start(request.prompt, request.adapter),
            Identity(request.adapter, request.cache_salt),
            last_token_at=now,
        )
        self._sequences[request.id] = sequence
        self.scheduler.enqueue(sequence)

    def abort(self, request_id: str, now: float = 0.0) -> RequestStats | None:
        """Drop a request, wherever it is; its stats, or None if it is not here."""
        sequence = self._sequences.get(request_id)
        return None if sequence is None else self._remove(sequence, now)

    def step(self, now: float) -> StepResult:
        """Compute one batch."""
        self.leases.expire(now)
        result = StepResult()
        self._start_pulls(result)
        shares = self.scheduler.schedule()
        if shares:
            work = _work(shares)
            result.tokens = work.tokens
            result.duration_s = self._model.step_s(work)
            for share in shares:
                self._compute(share, now, result)
        result.outputs += self._late
        self._late = []
        result.events = self.pool.drain_events()
        if not shares:
            result.wake_at = self.leases.next_expiry
        return result

    def pulled(self, request_id: str, tokens: int | None, now: float) -> None:
        """Outcome of a `Pull`: the tokens the other engine held, None if it did not have them any more."""
        sequence = self._sequences.get(request_id)
        if sequence is None or sequence not in self.scheduler.pulling:
            return
        self.scheduler.discard(sequence)
        if tokens is None:
            self._pull_failed(sequence, now)
            return
        self.counters.transfers += 1
        self.counters.transfer_bytes += tokens * self.config.transfer.bytes_per_token
        usable = min(tokens, len(sequence.tokens) - 1)
        gained = max(0, usable - sequence.computed)
        self.counters.external_hits += gained
        sequence.external = gained
        sequence.computed += gained
        self.scheduler.store(sequence)
        self.scheduler.requeue(sequence)

    def collect_lease(self, request_id: str, now: float) -> int | None:
        """Serve another engine's pull: the tokens held for the request, None if there are none."""
        return self.leases.collect(request_id, now)

    def clear_cache(self) -> bool:
        """Forget cached prefixes; False while requests run."""
        return self.pool.clear()

    @property
    def unfinished(self) -> int:
        return len(self._sequences)

    @property
    def running(self) -> int:
        return len(self.scheduler.running)

    @property
    def waiting(self) -> int:
        return len(self.scheduler.waiting) + len(self.scheduler.pulling)

    def adapters(self) -> tuple[list[str], list[str]]:
        """Names of the adapters that run, and of those that wait."""
        running = {item.request.adapter for item in self.scheduler.running}
        waiting = {item.request.adapter for item in self.scheduler.waiting}
        return sorted(running - {""}), sorted(waiting - {""})

    def check(self) -> None:
        """Assert the invariants of all parts."""
        self.pool.check()
        self.scheduler.check()
        parts = (self.scheduler.running, self.scheduler.waiting, self.scheduler.pulling)
        assert sum(len(part) for part in parts) == len(self._sequences)
        if not self._sequences and not len(self.leases):
            assert self.pool.usage == 0

    # -- one step ------------------------------------------------------------------------------------------------

    def _compute(self, share: Share, now: float, result: StepResult) -> None:
        sequence = share.sequence
        if sequence.cached is None:
            self._first_scheduled(sequence, now)
        self.scheduler.commit(share)
        if sequence.computed == len(sequence.tokens):
            result.outputs.append(self._next_token(sequence, now, result.duration_s))

    def _first_scheduled(self, sequence: Sequence, now: float) -> None:
        local = sequence.computed - sequence.external
        sequence.cached = sequence.computed
        sequence.scheduled_at = max(now, sequence.arrived_at)
        self.counters.prefix_queries += sequence.prompt_tokens
        self.counters.prefix_hits += local
        self.counters.prompt_tokens += sequence.prompt_tokens
        self.counters.prompt_tokens_computed += sequence.prompt_tokens - sequence.computed

    def _next_token(self, sequence: Sequence, now: float, duration_s: float) -> Output:
        token, logprob = self._draw(sequence)
        at = now + duration_s
        first = sequence.output_tokens == 0
        sequence.tokens.append(token)
        sequence.state = self._sampler.advance(sequence.state, token)
        output = Output(sequence.request.id, token, logprob, max(0.0, at - sequence.last_token_at), first)
        sequence.last_token_at = at
        self.counters.generation_tokens += 1
        if first:
            sequence.first_token_at = at
            output.cached_tokens = sequence.cached or 0
        output.finish = self._finish_reason(sequence, token, output)
        if output.finish is not None:
            output.cached_tokens = sequence.cached or 0
            if sequence.request.hold_for_decode and output.finish == "length":
                output.kv_transfer_params = self._hold(sequence, at)
            output.stats = self._remove(sequence, at)
        return output

    def _draw(self, sequence: Sequence) -> tuple[int, float]:
        request, done = sequence.request, sequence.output_tokens
        position, state = len(sequence.tokens), sequence.state
        if request.planned:
            return request.planned[done], 0.0
        if request.ignore_eos or done < request.min_tokens:
            return self._sampler.draw_word(state, position, request.seed)
        return self._sampler.draw(state, position, request.seed)

    def _finish_reason(self, sequence: Sequence, token: int, output: Output) -> FinishReason | None:
        request, done = sequence.request, sequence.output_tokens
        if request.planned:
            if done == len(request.planned):
                return "stop"
        elif token == EOS and not request.ignore_eos:
            return "stop"
        elif token in request.stop_token_ids and done >= request.min_tokens:
            output.stop_token = token
            return "stop"
        if done >= request.max_tokens or len(sequence.tokens) >= self.config.limits.max_model_len:
            return "length"
        return None

    # -- the end of a request ------------------------------------------------------------------------------------

    def _remove(self, sequence: Sequence, now: float) -> RequestStats:
        self.scheduler.discard(sequence)
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        del self._sequences[sequence.request.id]
        started = sequence.arrived_at if sequence.scheduled_at is None else sequence.scheduled_at
        return RequestStats(
            sequence.arrived_at,
            started,
            sequence.first_token_at or started,
            now,
            sequence.prompt_tokens,
            sequence.output_tokens,
            sequence.cached or 0,
            sequence.external,
            sequence.request.max_tokens,
            sequence.preemptions,
        )

    def _hold(self, sequence: Sequence, now: float) -> dict[str, Any] | None:
        """Put the prompt's blocks under a lease; what the decode engine has to be told."""
        config = self.config
        kept = sequence.blocks[: -(-sequence.prompt_tokens // config.block_size)]
        self.pool.take(kept)
        lease = self.leases.hold(sequence.request.held_as or sequence.request.id, kept, sequence.prompt_tokens, now)
        if sequence.request.held_as:
            return None
        return {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": [kept],
            "remote_engine_id": config.engine_id,
            "remote_request_id": sequence.request.id,
            "remote_host": config.side_channel_host,
            "remote_port": config.side_channel_port,
            "tp_size": config.tensor_parallel,
            "remote_num_tokens": sequence.prompt_tokens,
            "remote_blocks_expiry_time": lease.expires_at,
        }

    # -- KV from another engine ----------------------------------------------------------------------------------

    def _start_pulls(self, result: StepResult) -> None:
        """Reserve blocks for the prompts of waiting requests whose KV lies elsewhere, first come first served."""
        for sequence in [item for item in self.scheduler.waiting if item.request.remote and not item.pull_tried]:
            remote = sequence.request.remote
            assert remote is not None
            if not self.scheduler.admit_prefix(sequence, reserve_tokens=sequence.prompt_tokens):
                return
            sequence.pull_tried = True
            wanted = max(0, min(remote.tokens, sequence.prompt_tokens - 1) - sequence.computed)
            self.counters.external_queries += sequence.prompt_tokens - sequence.computed
            self.scheduler.discard(sequence)
            self.scheduler.pulling.append(sequence)
            duration = self.config.transfer.seconds(wanted) if wanted else 0.0
            result.pulls.append(Pull(sequence.request.id, remote, wanted, duration))

    def _pull_failed(self, sequence: Sequence, now: float) -> None:
        self.counters.transfer_failures += 1
        self.scheduler.forget(sequence)
        if self.config.kv_load_failure == "recompute":
            self.scheduler.requeue(sequence)
            return
        stats = self._remove(sequence, now)
        output = Output(sequence.request.id, None, finish="error", stats=stats)
        output.error = "the KV cache of the prefill engine could not be loaded (kv_load_failure_policy is fail)"
        self._late.append(output)


def _work(shares: list[Share]) -> StepWork:
    work = StepWork()
    for share in shares:
        if share.new == 1 and share.before >= share.sequence.prompt_tokens:
            work.decodes += 1
            work.decode_context += share.before
        else:
            work.prefills.append((share.new, share.before))
    return work
