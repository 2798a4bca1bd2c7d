"""Runs an `EngineCore` in real time: steps it, waits out each step, and hands tokens to whoever asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from hekla.deployments.simengine.core import EngineCore
from hekla.deployments.simengine.events import Event
from hekla.deployments.simengine.metrics import EngineMetrics
from hekla.deployments.simengine.sequence import EngineRequest, FinishReason, Output, Pull, RemoteKv, StepResult
from hekla.platform.base.clock import Clock
from hekla.platform.base.tasks import TaskOwner

logger = logging.getLogger(__name__)

LATE_S_MAX = 0.1
"""Behind its schedule by more than this the engine does not catch up: the machine is too slow for the model."""


class Mailbox:
    """Outputs on their way to one HTTP request. `eager`: wake its reader at every token, else only at an end."""

    def __init__(self, *, eager: bool) -> None:
        self._eager = eager
        self._items: list[Output] = []
        self._reader: asyncio.Future[None] | None = None
        self._closed = False

    def push(self, output: Output) -> None:
        self._items.append(output)
        if (self._eager or output.finish is not None) and self._reader is not None:
            self._wake()

    def close(self) -> None:
        """The client has gone: the reader gets an empty list."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    @property
    def _ready(self) -> bool:
        if self._eager:
            return bool(self._items)
        return any(item.finish is not None for item in self._items)

    async def take(self) -> list[Output]:
        """Everything since the last call, at least one item; empty once closed."""
        while not self._ready and not self._closed:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
            self._reader = None
        if self._closed:
            return []
        items, self._items = self._items, []
        return items


class Peer(Protocol):
    """Reaches the engines that hold KV for us."""

    async def pull(self, remote: RemoteKv) -> int | None:
        """Tokens fetched; None when the engine or the lease is gone."""


class Runner:
    """`publish` gets the KV events of each step."""

    def __init__(
        self,
        core: EngineCore,
        clock: Clock,
        metrics: EngineMetrics,
        *,
        peer: Peer,
        publish: Callable[[list[Event]], None],
    ) -> None:
        self.core = core
        self.metrics = metrics
        self.fault: Callable[[int], bool] | None = None
        """Asked after each step with the tokens generated so far; True: the engine hangs from here on."""
        self._clock = clock
        self._peer = peer
        self._publish = publish
        self._mail: dict[str, Mailbox] = {}
        self._wake = asyncio.Event()
        self._pulls = TaskOwner("pulls")
        self._stalled = False

    def submit(self, request: EngineRequest, mailbox: Mailbox) -> None:
        """Raises ValueError as `EngineCore.add` does."""
        self.core.add(request, self._clock.monotonic())
        self._mail[request.id] = mailbox
        self._wake.set()

    def cancel(self, request_id: str, reason: FinishReason = "abort") -> None:
        """Stop a request: its client left, or (reason `stop`) its text met a stop string."""
        self._mail.pop(request_id, None)
        stats = self.core.abort(request_id, self._clock.monotonic())
        if stats is not None:
            self.metrics.finished(stats, reason)
            self._wake.set()

    def collect_lease(self, request_id: str) -> int | None:
        """Serve another engine's pull."""
        tokens = self.core.collect_lease(request_id, self._clock.monotonic())
        if tokens is not None:
            self._wake.set()
        return tokens

    def clear_cache(self) -> bool:
        """Forget cached prefixes; False while requests run."""
        cleared = self.core.clear_cache()
        self._publish_pending()
        return cleared

    def _publish_pending(self) -> None:
        events = self.core.pool.drain_events()
        if events:
            self._publish(events)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self._idle()
                await self._busy()
        finally:
            await self._pulls.stop()

    async def _idle(self) -> None:
        """Wait for work; expired leases are looked after on the way."""
        expiry = self.core.leases.next_expiry
        if self.core.unfinished and not self._stalled:
            return
        timeout = None if expiry is None else max(0.0, expiry - self._clock.monotonic()) + 1e-3
        try:
            await asyncio.wait_for(self._wake.wait(), timeout)
        except TimeoutError:
            pass
        self._stalled = False

    async def _busy(self) -> None:
        """Step until nothing can run. Steps follow each other on the engine's schedule, not on the machine's delays."""
        due = self._clock.monotonic()
        while True:
            self._wake.clear()  # before the step: what comes while it is waited out must not be lost
            now = self._clock.monotonic()
            due = due if now - due < LATE_S_MAX else now
            result = self.core.step(due)
            for pull in result.pulls:
                self._pulls.spawn(self._pull(pull), pull.request_id)
            due += result.duration_s
            await self._wait(due)
            self._deliver(result)
            if self.fault is not None and self.fault(self.core.counters.generation_tokens):
                await asyncio.get_running_loop().create_future()
            if not result.tokens and not result.outputs and not result.pulls:
                self._stalled = True
                return

    async def _wait(self, due: float) -> None:
        left = due - self._clock.monotonic()
        await self._clock.sleep(max(0, left))

    def _deliver(self, result: StepResult) -> None:
        if result.events:
            self._publish(result.events)
        if result.tokens:
            self.metrics.iteration_tokens.observe(result.tokens)
        for output in result.outputs:
            if output.token is not None:
                self.metrics.token(output)
            if output.finish is None:
                mailbox = self._mail.get(output.request_id)
            else:
                mailbox = self._mail.pop(output.request_id, None)
                if output.stats is not None:
                    self.metrics.finished(output.stats, output.finish)
            if mailbox is not None:
                mailbox.push(output)

    async def _pull(self, pull: Pull) -> None:
        started = self._clock.monotonic()
        tokens = await self._peer.pull(pull.remote)
        if tokens is not None:
            await self._wait(started + pull.duration_s)
            self.metrics.transferred(
                self._clock.monotonic() - started, tokens * self.core.config.transfer.bytes_per_token
            )
        self.core.pulled(pull.request_id, tokens, self._clock.monotonic())
        self._wake.set()
