"""A runtime over an in-memory store, in virtual time and without jitter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from hekla.platform.base.clock import VirtualClock, settle
from hekla.platform.base.ids import SeededIds
from hekla.platform.control.recording import RecordingController
from hekla.platform.control.runtime import ControllerRuntime
from hekla.platform.store.memory import MemoryStore

Start = Callable[..., Awaitable[ControllerRuntime]]


class NoJitter(SeededIds):
    def random(self) -> float:
        return 0.0


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def store(clock: VirtualClock) -> MemoryStore:
    return MemoryStore(clock, SeededIds(1))


@pytest.fixture
async def start(store: MemoryStore, clock: VirtualClock) -> AsyncIterator[Start]:
    runtimes = []

    async def begin(*controllers: RecordingController, workers: int = 8) -> ControllerRuntime:
        runtime = ControllerRuntime(store, controllers, clock, NoJitter(1), workers)
        runtimes.append(runtime)
        await runtime.start()
        await settle()
        return runtime

    yield begin
    for runtime in runtimes:
        await runtime.stop()
