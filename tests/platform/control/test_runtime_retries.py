"""When the runtime asks again: after failures of each kind, and when a controller wants it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from hekla.platform.api.meta import Json, Ref
from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.errors import Conflict, Permanent, Temporary
from hekla.platform.base.ids import SeededIds
from hekla.platform.control.interface import Again
from hekla.platform.control.recording import Reconcile, RecordingController
from hekla.platform.control.runtime import ControllerRuntime
from hekla.platform.store.memory import MemoryStore

Start = Callable[..., Awaitable[ControllerRuntime]]


def a_model(name: str = "a", **spec: object) -> Json:
    return {"apiVersion": "test/v1", "kind": "Model", "metadata": {"name": name}, "spec": spec}


def a_child(name: str, model: str) -> Json:
    return {"apiVersion": "test/v1", "kind": "Child", "metadata": {"name": name}, "spec": {"model": model}}


def failing(error: Exception) -> Reconcile:
    async def then(key: Ref) -> None:
        raise error

    return then


async def test_a_failing_key_backs_off_exactly(store: MemoryStore, clock: VirtualClock, start: Start) -> None:
    store.create(a_model())
    controller = RecordingController(clock, failing(ValueError("no")))
    runtime = await start(controller)
    await clock.advance(12.7)
    assert controller.times == pytest.approx([0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 12.7])
    stats = runtime.snapshot()["models"]
    assert (stats.reconciles, stats.errors, stats.retries, stats.failing) == (8, 8, 7, 1)
    assert stats.troubles == {"Model default/a": "ValueError: no"}


async def test_jitter_takes_up_to_half_of_the_backoff(store: MemoryStore, clock: VirtualClock) -> None:
    store.create(a_model())
    controller = RecordingController(clock, failing(ValueError("no")))
    runtime = ControllerRuntime(store, [controller], clock, SeededIds(4))
    await runtime.start()
    await clock.advance(100)
    await runtime.stop()
    chance = SeededIds(4)
    expected = [0.0]
    for failures in range(len(controller.times) - 1):
        expected.append(expected[-1] + min(60, 0.1 * 2**failures) * (1 - chance.random() / 2))
    assert len(expected) > 8
    assert controller.times == pytest.approx(expected, abs=1e-3)


async def test_a_temporary_failure_is_retried_after_its_own_delay(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    store.create(a_model())
    controller = RecordingController(clock, failing(Temporary("later", delay_s=30)))
    await start(controller)
    await clock.advance(60)
    assert controller.times == [0, 30, 60]


async def test_a_conflict_is_retried_without_a_stack_trace(
    store: MemoryStore, clock: VirtualClock, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    store.create(a_model())
    controller = RecordingController(clock, failing(Conflict("stale")))
    await start(controller)
    await clock.advance(0.1)
    assert controller.times == [0, 0.1]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_permanent_failure_waits_for_the_object_to_change(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    async def refuse(key: Ref) -> None:
        store.update_status({**a_model(), "status": {"at": clock.monotonic()}})
        raise Permanent("bad image")

    store.create(a_model())
    controller = RecordingController(clock, refuse)
    runtime = await start(controller)
    store.create(a_child("x", "a"))
    await clock.advance(3600)
    assert controller.times == [0]
    assert runtime.snapshot()["models"].parked == 1
    store.update(a_model(image="better"))
    await runtime.idle()
    assert controller.times == [0, 3600]


async def test_a_failing_reconcile_that_writes_its_status_still_backs_off(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    async def report_and_fail(key: Ref) -> None:
        store.update_status({**a_model(), "status": {"at": clock.monotonic()}})
        await asyncio.sleep(0)
        raise Temporary("no room")

    store.create(a_model())
    controller = RecordingController(clock, report_and_fail)
    await start(controller)
    await clock.advance(0.75)
    assert controller.times == pytest.approx([0, 0.1, 0.3, 0.7])


async def test_again_reconciles_after_its_time(store: MemoryStore, clock: VirtualClock, start: Start) -> None:
    async def every_minute(key: Ref) -> Again:
        return Again(60)

    store.create(a_model())
    controller = RecordingController(clock, every_minute)
    await start(controller)
    await clock.advance(180)
    assert controller.times == [0, 60, 120, 180]


async def test_an_earlier_time_set_later_is_kept(store: MemoryStore, clock: VirtualClock, start: Start) -> None:
    async def by_name(key: Ref) -> Again:
        return Again(100 if key.name == "a" else 3)

    store.create(a_model("a"))
    controller = RecordingController(clock, by_name)
    await start(controller)
    await clock.advance(1)
    store.create(a_model("b"))
    await clock.advance(3)
    assert controller.calls == [(0, "a"), (1, "b"), (4, "b")]


async def test_a_cancelled_thing_inside_a_reconcile_is_a_failure_and_not_the_end(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    controller = RecordingController(clock, failing(asyncio.CancelledError()))  # type: ignore[arg-type]
    store.create(a_model())
    await start(controller)
    await clock.advance(0.3)
    assert controller.times == pytest.approx([0, 0.1, 0.3])
