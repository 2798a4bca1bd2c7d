"""The runtime over an in-memory store, in virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import pytest

from hekla.platform.api.meta import Json, Ref, ref_of
from hekla.platform.base.clock import VirtualClock, settle
from hekla.platform.base.errors import Conflict, Permanent, Temporary
from hekla.platform.base.ids import SeededIds
from hekla.platform.base.limits import WATCH_QUEUE_EVENTS_MAX
from hekla.platform.control.interface import Again
from hekla.platform.control.pump import STUCK_AFTER_S
from hekla.platform.control.runtime import ControllerRuntime
from hekla.platform.store.memory import MemoryStore

Reconcile = Callable[[Ref], Awaitable[Again | None]]


class NoJitter(SeededIds):
    def random(self) -> float:
        return 0.0


class Recording:
    """A controller of Models, woken by Children too, that notes each reconcile and then does as it is told."""

    name = "models"
    kind = "Model"
    watches: tuple[str, ...] = ("Child",)

    def __init__(self, clock: VirtualClock, then: Reconcile | None = None) -> None:
        self.clock = clock
        self.then = then
        self.calls: list[tuple[float, str]] = []
        self.running: set[Ref] = set()

    def keys_for(self, obj: Json) -> Iterable[Ref]:
        return [Ref("Model", "default", obj["spec"]["model"])]

    async def reconcile(self, key: Ref) -> Again | None:
        assert key not in self.running, f"two reconciles of {key} at once"
        self.running.add(key)
        self.calls.append((round(self.clock.monotonic(), 4), key.name))
        try:
            return await self.then(key) if self.then else None
        finally:
            self.running.discard(key)

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.calls]

    @property
    def names(self) -> list[str]:
        return [name for _, name in self.calls]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def store(clock: VirtualClock) -> MemoryStore:
    return MemoryStore(clock, SeededIds(1))


Start = Callable[..., Awaitable[ControllerRuntime]]


@pytest.fixture
async def start(store: MemoryStore, clock: VirtualClock) -> AsyncIterator[Start]:
    runtimes = []

    async def begin(*controllers: Recording, workers: int = 8) -> ControllerRuntime:
        runtime = ControllerRuntime(store, controllers, clock, NoJitter(1), workers)
        runtimes.append(runtime)
        await runtime.start()
        await settle()
        return runtime

    yield begin
    for runtime in runtimes:
        await runtime.stop()


def a_model(name: str = "a", **spec: object) -> Json:
    return {"apiVersion": "test/v1", "kind": "Model", "metadata": {"name": name}, "spec": spec}


def a_child(name: str, model: str) -> Json:
    return {"apiVersion": "test/v1", "kind": "Child", "metadata": {"name": name}, "spec": {"model": model}}


def failing(error: Exception) -> Reconcile:
    async def then(key: Ref) -> None:
        raise error

    return then


async def test_every_object_is_reconciled_once_at_the_start(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    for name in "cab":
        store.create(a_model(name))
    controller = Recording(clock)
    runtime = await start(controller)
    await runtime.idle()
    assert controller.names == ["a", "b", "c"]


async def test_what_related_objects_name_is_reconciled_at_the_start_too(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    store.create(a_child("orphan", model="long-gone"))
    controller = Recording(clock)
    await start(controller)
    assert controller.names == ["long-gone"]


async def test_creation_change_status_and_deletion_each_reconcile(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    controller = Recording(clock)
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
    controller = Recording(clock)
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

    controller = Recording(clock, slow)
    store.create(a_model())
    runtime = await start(controller)
    for number in range(5):
        store.update(a_model(replicas=number))
        await clock.advance(1)
    await clock.advance(100)
    await runtime.idle()
    assert controller.times == [0, 10]


async def test_a_failing_key_backs_off_exactly(store: MemoryStore, clock: VirtualClock, start: Start) -> None:
    store.create(a_model())
    controller = Recording(clock, failing(ValueError("no")))
    runtime = await start(controller)
    await clock.advance(12.7)
    assert controller.times == pytest.approx([0, 0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 12.7])
    stats = runtime.snapshot()["models"]
    assert (stats.reconciles, stats.errors, stats.retries, stats.failing) == (8, 8, 7, 1)
    assert stats.troubles == {"Model default/a": "ValueError: no"}


async def test_jitter_takes_up_to_half_of_the_backoff(store: MemoryStore, clock: VirtualClock) -> None:
    store.create(a_model())
    controller = Recording(clock, failing(ValueError("no")))
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
    controller = Recording(clock, failing(Temporary("later", delay_s=30)))
    await start(controller)
    await clock.advance(60)
    assert controller.times == [0, 30, 60]


async def test_a_conflict_is_retried_without_a_stack_trace(
    store: MemoryStore, clock: VirtualClock, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    store.create(a_model())
    controller = Recording(clock, failing(Conflict("stale")))
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
    controller = Recording(clock, refuse)
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
    controller = Recording(clock, report_and_fail)
    await start(controller)
    await clock.advance(0.75)
    assert controller.times == pytest.approx([0, 0.1, 0.3, 0.7])


async def test_again_reconciles_after_its_time(store: MemoryStore, clock: VirtualClock, start: Start) -> None:
    async def every_minute(key: Ref) -> Again:
        return Again(60)

    store.create(a_model())
    controller = Recording(clock, every_minute)
    await start(controller)
    await clock.advance(180)
    assert controller.times == [0, 60, 120, 180]


async def test_an_earlier_time_set_later_is_kept(store: MemoryStore, clock: VirtualClock, start: Start) -> None:
    async def by_name(key: Ref) -> Again:
        return Again(100 if key.name == "a" else 3)

    store.create(a_model("a"))
    controller = Recording(clock, by_name)
    await start(controller)
    await clock.advance(1)
    store.create(a_model("b"))
    await clock.advance(3)
    assert controller.calls == [(0, "a"), (1, "b"), (4, "b")]


async def test_a_cancelled_thing_inside_a_reconcile_is_a_failure_and_not_the_end(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    controller = Recording(clock, failing(asyncio.CancelledError()))  # type: ignore[arg-type]
    store.create(a_model())
    await start(controller)
    await clock.advance(0.3)
    assert controller.times == pytest.approx([0, 0.1, 0.3])


async def test_a_thousand_keys_run_in_parallel_up_to_the_workers(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    most = 0

    async def slow(key: Ref) -> None:
        nonlocal most
        most = max(most, len(controller.running))
        await clock.sleep(1)

    controller = Recording(clock, slow)
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
    controller = Recording(clock, forever)
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
    controller = Recording(clock, tidy_up)
    runtime = await start(controller, workers=1)
    await runtime.stop()
    await settle()
    assert controller.names == ["a"]


async def test_a_restart_lists_again(store: MemoryStore, clock: VirtualClock, start: Start) -> None:
    controller = Recording(clock)
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
    controller = Recording(clock)
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
    await start(Recording(clock, stuck))
    await clock.advance(2.5 * STUCK_AFTER_S)
    assert [record.getMessage() for record in caplog.records] == [
        "controller models: the reconcile of Model default/tar has run for 300 s"
    ]
    await clock.advance(STUCK_AFTER_S)
    assert caplog.records[-1].getMessage().endswith("Model default/tar ended after 900 s")


async def test_keys_for_that_raises_stops_nothing(store: MemoryStore, clock: VirtualClock, start: Start) -> None:
    controller = Recording(clock)
    runtime = await start(controller)
    store.create({"kind": "Child", "metadata": {"name": "broken"}})
    store.create(a_child("fine", "a"))
    await runtime.idle()
    assert controller.names == ["a"]
    assert runtime.snapshot()["models"].errors == 1


async def test_two_controllers_of_one_name_are_refused(store: MemoryStore, clock: VirtualClock) -> None:
    with pytest.raises(ValueError, match="models, models"):
        ControllerRuntime(store, [Recording(clock), Recording(clock)], clock, SeededIds(1))


async def test_a_reconcile_that_writes_children_is_settled_when_idle_returns(
    store: MemoryStore, clock: VirtualClock, start: Start
) -> None:
    async def make_child(key: Ref) -> None:
        await clock.sleep(0)
        if not store.list("Child").items:
            store.create(a_child("x", key.name))

    controller = Recording(clock, make_child)
    runtime = await start(controller)
    owner = store.create(a_model())
    await runtime.idle()
    assert ref_of(owner).name == "a"
    assert len(store.list("Child").items) == 1
    assert controller.names == ["a", "a"]
