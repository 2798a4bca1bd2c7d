"""`FakeSupervisor`: an engine supervisor without a process, for controllers' tests and simulations.

It obeys the same life cycle and the same contract tests as `EngineSupervisor`. Nothing happens by itself after `start`
but the script: by default the engine is ready at once; with `Script(steps=())` the test plays every event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hekla.deployments.commands import understood
from hekla.deployments.engines.lifecycle import (
    ENDED,
    Do,
    DrainAsked,
    Event,
    Exited,
    Healthy,
    Limits,
    Serves,
    Spawned,
    State,
    StopAsked,
    advance,
)
from hekla.deployments.launch import EngineLaunch, EngineReport
from hekla.deployments.lora.engine_api import FakeAdapterApi
from hekla.deployments.lora.keeper import AdapterKeeper
from hekla.deployments.lora.model import AdapterAsk
from hekla.deployments.lora.slots import adapter_slots
from hekla.platform.base.clock import Clock, SystemClock
from hekla.platform.base.tasks import TaskOwner

FAKE_PID = 4_000_000_000
"""Above any real process id: nothing is ever killed by mistake."""


@dataclass(frozen=True)
class Step:
    """After `after_s` seconds, `event` happens."""

    event: Event
    after_s: float = 0.0


@dataclass(frozen=True)
class Script:
    """What happens after `start`; None: spawned, then healthy with the launch's served model."""

    steps: Sequence[Step] | None = None
    address: str = "http://127.0.0.1:1"
    work: int = 0
    """Requests that keep a draining engine busy until its grace is over."""


class FakeSupervisor:
    """Same methods as EngineSupervisor; `play` and `crash` make things happen."""

    def __init__(self, launch: dict[str, Any], script: Script | None = None, clock: Clock | None = None) -> None:
        self.launch = understood(EngineLaunch.model_validate(launch))
        self.script = script or Script()
        self._clock = clock or SystemClock()
        self._state = State(Limits(self.launch.startup_timeout_s, self.launch.health_failures_max))
        self._version = 1
        self._changed = asyncio.Event()
        self._tasks = TaskOwner(f"fake supervisor {self.launch.name}")
        self._started = False
        self._log = b""
        self.adapter_api = FakeAdapterApi()
        self._adapters = AdapterKeeper(
            adapter_slots(self.launch), lambda: self.adapter_api, self._fetch_adapter,
            clock=self._clock, tasks=self._tasks, on_change=self._tell_adapters,
        )  # fmt: skip
        self._told = self._report()

    async def start(self) -> None:
        if not self._started and self._state.phase not in ENDED:
            self._started = True
            self._tasks.spawn(self._perform(), "script")

    async def report(self, seen: int, wait_s: float) -> dict[str, Any]:
        if self._version <= seen:
            waits = [self._changed.wait(), self._clock.sleep(wait_s)]
            async with TaskOwner("report") as tasks:
                racers = [tasks.spawn(wait, "wait") for wait in waits]
                await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
        return self._report().model_dump()

    async def drain(self, grace_s: float) -> None:
        self.play(DrainAsked())
        if self._state.phase == "Draining":
            await self._clock.sleep(grace_s if self.script.work else 0.0)
            self.play(Exited("drained"))

    async def set_adapters(self, owner: str, wanted: list[dict[str, Any]]) -> None:
        self._adapters.ask(owner, [AdapterAsk.model_validate(ask) for ask in wanted])

    async def stop(self) -> None:
        self.play(StopAsked())

    async def logs(self, offset: int, limit: int) -> dict[str, Any]:
        size = len(self._log)
        begin = min(size, max(0, size + offset if offset < 0 else offset))
        data = self._log[begin : begin + max(0, limit)]
        return {"text": data.decode(errors="replace"), "next": begin + len(data), "size": size}

    def play(self, event: Event) -> None:
        """Make `event` happen now."""
        if isinstance(event, Healthy):
            event = replace(event, models=self._adapters.models(event.models))
        self._state, todo = advance(self._state, event, self._clock.monotonic())
        if Do.KILL in todo or self._state.phase in ENDED:
            self._started = True
        if self._state.phase == "Ready":
            self._adapters.open()
        elif self._state.phase in ("Draining", *ENDED):
            self._adapters.close()
        self._notify()

    def _tell_adapters(self) -> None:
        self._state, _ = advance(
            self._state, Serves(self._adapters.models(self._state.models)), self._clock.monotonic()
        )
        self._notify()

    async def _fetch_adapter(self, uri: str) -> Path:
        return Path(uri)

    def _notify(self) -> None:
        if self._report() != self._told:
            self._version += 1
            self._told = self._report()
            self._changed.set()
            self._changed = asyncio.Event()

    def crash(self, how: str = "the engine was killed by SIGKILL") -> None:
        """The engine's process dies."""
        self.play(Exited(how))

    def write_log(self, text: str) -> None:
        self._log += text.encode()

    async def _perform(self) -> None:
        for step in self._steps():
            if step.after_s:
                await self._clock.sleep(step.after_s)
            self.play(step.event)

    def _steps(self) -> Sequence[Step]:
        if self.script.steps is not None:
            return self.script.steps
        served = (self.launch.served_model_name,) if self.launch.served_model_name else ()
        return [Step(Spawned(FAKE_PID, self.script.address)), Step(Healthy(served))]

    def _report(self) -> EngineReport:
        state = self._state
        return EngineReport(
            version=self._version,
            phase=state.phase,
            message=state.message,
            progress=state.progress,
            address=state.address,
            node_name="fake-node",
            pid=state.pid,
            supervisor_pid=FAKE_PID + 1,
            models=list(state.models),
            max_model_len=state.max_model_len,
            adapters=self._adapters.adapters,
            adapter_slots=self._adapters.slots,
            kv_events=state.kv_events,
            kv_replay=state.kv_replay,
            bootstrap_port=state.bootstrap_port,
        )

    def __repr__(self) -> str:
        return f"FakeSupervisor({self.launch.name!r}, {self._state.phase}, {self._state.message!r})"
