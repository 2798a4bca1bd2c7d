"""When the runtime reconciles which key, over an in-memory store and in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from hekla.platform.api.meta import Json, Ref, ref_of
from hekla.platform.base.clock import VirtualClock, settle
from hekla.platform.base.ids import SeededIds
from hekla.platform.base.limits import WATCH_QUEUE_EVENTS_MAX
from hekla.platform.control.pump import STUCK_AFTER_S
from hekla.platform.control.recording import RecordingController
from hekla.platform.control.runtime import ControllerRuntime
from hekla.platform.store.memory import MemoryStore

Start = Callable[..., Awaitable[ControllerRuntime]]


def a_model(name: str = "a", **spec: object) -> Json:
    return {"apiVersion": "test/v1", "kind": "Model", "metadata": {"name": name}, "spec": spec}


def a_child(name: str, model: str) -> Json:
    return {"apiVersion": "test/v1", "kind": "Child", "metadata": {"name": name}, "spec": {"model": model}}


async def test_every_object_is_reconciled_once_at_the_start(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    for name in "cab":
        store.create(a_model(name))
    controller = RecordingController(clock)
    runtime = await start(controller)
    await runtime.idle()
    assert controller.names == ["a", "b", "c"]


async def test_what_related_objects_name_is_reconciled_at_the_start_too(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    store.create(a_child("orphan", model="long-gone"))
    controller = RecordingController(clock)
    await start(controller)
    assert controller.names == ["long-gone"]


async def test_creation_change_status_and_deletion_each_reconcile(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    controller = RecordingController(clock)
    runtime = await start(controller)
    writes: list[Callable[[], object]] = [
        lambda: store.create(a_model()),
        lambda: store.update(a_model(replicas=2)),
        lambda: store.update_status({**a_model(), "status": {"phase": "Ready"}}),
        lambda: store.delete(Ref("Model", "default", "a")),
        lambda: store.create(a_child("x", "a")),
    ]
    for number, write in enumerate(writes, start=1):
        write()
        await runtime.idle()
        assert controller.names == ["a"] * number


async def test_many_changes_before_the_first_turn_are_one_reconcile(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    controller = RecordingController(clock)
    runtime = await start(controller)
    store.create(a_model())
    for number in range(20):
        store.update(a_model(replicas=number))
    await runtime.idle()
    assert len(controller.calls) <= 2


async def test_changes_during_a_reconcile_lead_to_exactly_one_more(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    async def slow(key: Ref) -> None:
        await clock.sleep(10)

    controller = RecordingController(clock, slow)
    store.create(a_model())
    runtime = await start(controller)
    for number in range(5):
        store.update(a_model(replicas=number))
        await clock.advance(1)
    await clock.advance(100)
    await runtime.idle()
    assert controller.times == [0, 10]


async def test_a_thousand_keys_run_in_parallel_up_to_the_workers(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    most = 0

    async def slow(key: Ref) -> None:
        nonlocal most
        most = max(most, len(controller.running))
        await clock.sleep(1)

    controller = RecordingController(clock, slow)
    with store.transaction():
        for number in range(1000):
            store.create(a_model(f"m{number:04}"))
    runtime = await start(controller, workers=50)
    assert runtime.snapshot()["models"].depth == 950
    await clock.advance(20)
    await runtime.idle()
    assert most == 50
    assert sorted(controller.names) == [f"m{number:04}" for number in range(1000)]
    assert clock.monotonic() == 20


async def test_stop_cancels_what_runs_and_nothing_follows(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    ended = []

    async def forever(key: Ref) -> None:
        try:
            await clock.sleep(1e9)
        finally:
            ended.append(key.name)

    for name in "abc":
        store.create(a_model(name))
    controller = RecordingController(clock, forever)
    runtime = await start(controller, workers=2)
    await runtime.stop()
    assert sorted(ended) == ["a", "b"]
    store.create(a_model("d"))
    await clock.advance(1000)
    assert controller.names == ["a", "b"]
    assert [task for task in asyncio.all_tasks() if "models" in task.get_name()] == []


async def test_a_reconcile_that_finishes_although_it_is_cancelled_is_followed_by_none(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    async def tidy_up(key: Ref) -> None:
        try:
            await clock.sleep(1e9)
        except asyncio.CancelledError:
            pass

    for name in "ab":
        store.create(a_model(name))
    controller = RecordingController(clock, tidy_up)
    runtime = await start(controller, workers=1)
    await runtime.stop()
    await settle()
    assert controller.names == ["a"]


async def test_a_restart_lists_again(store: MemoryStore, clock: VirtualClock, start: Start) -> None:
    controller = RecordingController(clock)
    store.create(a_model("a"))
    runtime = await start(controller)
    await runtime.stop()
    store.create(a_model("b"))
    await runtime.start()
    await runtime.idle()
    assert controller.names == ["a", "a", "b"]


async def test_a_watch_that_fell_behind_lists_again_and_notices_what_is_gone(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    for name in ("keep", "lose"):
        store.create(a_model(name))
    controller = RecordingController(clock)
    runtime = await start(controller)
    controller.calls.clear()
    with store.transaction():
        store.delete(Ref("Model", "default", "lose"))
        for number in range(WATCH_QUEUE_EVENTS_MAX + 1):
            store.update(a_model("keep", number=number))
    await runtime.idle()
    assert sorted(controller.names) == ["keep", "lose"]
    assert runtime.snapshot()["models"].relists == 1


async def test_a_stuck_reconcile_is_named_once_and_again_when_it_ends(
    store: MemoryStore, clock: VirtualClock, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async def stuck(key: Ref) -> None:
        await clock.sleep(3 * STUCK_AFTER_S)

    store.create(a_model("tar"))
    await start(RecordingController(clock, stuck))
    await clock.advance(2.5 * STUCK_AFTER_S)
    assert [record.getMessage() for record in caplog.records] == [
        "controller models: the reconcile of Model default/tar has run for 300 s"
    ]
    await clock.advance(STUCK_AFTER_S)
    assert caplog.records[-1].getMessage().endswith("Model default/tar ended after 900 s")


async def test_keys_for_that_raises_stops_nothing(store: MemoryStore, clock: VirtualClock, start: Start) -> None:
    controller = RecordingController(clock)
    runtime = await start(controller)
    store.create({"kind": "Child", "metadata": {"name": "broken"}})
    store.create(a_child("fine", "a"))
    await runtime.idle()
    assert controller.names == ["a"]
    assert runtime.snapshot()["models"].errors == 1


async def test_two_controllers_of_one_name_are_refused(store: MemoryStore, clock: VirtualClock) -> None:
    with pytest.raises(ValueError, match="models, models"):
        ControllerRuntime(store, [RecordingController(clock), RecordingController(clock)], clock, SeededIds(1))


async def test_a_reconcile_that_writes_children_is_settled_when_idle_returns(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    async def make_child(key: Ref) -> None:
        await clock.sleep(0)
        if not store.list("Child").items:
            store.create(a_child("x", key.name))

    controller = RecordingController(clock, make_child)
    runtime = await start(controller)
    owner = store.create(a_model())
    await runtime.idle()
    assert ref_of(owner).name == "a"
    assert len(store.list("Child").items) == 1
    assert controller.names == ["a", "a"]
