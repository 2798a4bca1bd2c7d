"""What controllers tell people."""

from __future__ import annotations

import pytest

from hekla.platform.api.kinds.event import EventSpec
from hekla.platform.api.meta import Json, ref_of
from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.ids import SeededIds
from hekla.platform.control.events import EventRecorder
from hekla.platform.store.memory import MemoryStore


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def store(clock: VirtualClock) -> MemoryStore:
    return MemoryStore(clock, SeededIds(1))


def a_model(store: MemoryStore, name: str = "llama", namespace: str = "default") -> Json:
    return store.create({"kind": "Model", "metadata": {"name": name, "namespace": namespace}})


def events(store: MemoryStore, namespace: str | None = None) -> list[Json]:
    return store.list("Event", namespace).items


def test_an_event_says_what_happened_to_which_object(store: MemoryStore, clock: VirtualClock) -> None:
    model = a_model(store)
    written = EventRecorder(store, clock).record(model, "Warning", "NoRoom", "no GPU is free")
    (event,) = events(store)
    assert event == written
    spec = EventSpec.model_validate(event["spec"])
    assert (spec.regarding_kind, spec.regarding_name, spec.regarding_uid) == (
        "Model",
        "llama",
        model["metadata"]["uid"],
    )
    assert (spec.type, spec.reason, spec.message, spec.count) == ("Warning", "NoRoom", "no GPU is free", 1)
    assert spec.first_seen == spec.last_seen == "2025-06-15T15:06:40Z"


async def test_the_same_again_is_counted_even_by_a_new_recorder(store: MemoryStore, clock: VirtualClock) -> None:
    model = a_model(store)
    EventRecorder(store, clock).record(model, "Normal", "Started", "up")
    await clock.advance(60)
    EventRecorder(store, clock).record(model, "Normal", "Started", "up")
    (event,) = events(store)
    assert event["spec"]["count"] == 2
    assert (event["spec"]["firstSeen"], event["spec"]["lastSeen"]) == ("2025-06-15T15:06:40Z", "2025-06-15T15:07:40Z")


def test_another_reason_message_or_object_is_another_event(store: MemoryStore, clock: VirtualClock) -> None:
    recorder, model = EventRecorder(store, clock), a_model(store)
    recorder.record(model, "Normal", "Started", "up")
    recorder.record(model, "Normal", "Stopped", "up")
    recorder.record(model, "Normal", "Started", "up again")
    recorder.record(a_model(store, "other"), "Normal", "Started", "up")
    assert len(events(store)) == 4


def test_an_objects_events_outlive_it(store: MemoryStore, clock: VirtualClock) -> None:
    model = a_model(store)
    EventRecorder(store, clock).record(model, "Normal", "Started")
    store.delete(ref_of(model))
    assert len(events(store)) == 1


async def test_a_full_namespace_loses_its_oldest_and_others_none(store: MemoryStore, clock: VirtualClock) -> None:
    recorder = EventRecorder(store, clock, per_namespace_max=20)
    model, other = a_model(store), a_model(store, namespace="other")
    recorder.record(other, "Normal", "Quiet")
    recorder.record(model, "Normal", "First")
    for number in range(50):
        await clock.advance(1)
        recorder.record(model, "Normal", "Tick", f"tick {number}")
        recorder.record(model, "Normal", "First")
        assert len(events(store, "default")) <= 20
    left = {event["spec"]["message"] for event in events(store, "default")}
    assert {"", "tick 49", "tick 40"} <= left
    assert "tick 0" not in left
    assert len(events(store, "other")) == 1


def test_the_limit_holds_for_events_written_before_the_recorder(store: MemoryStore, clock: VirtualClock) -> None:
    model = a_model(store)
    for number in range(10):
        EventRecorder(store, clock, per_namespace_max=5).record(model, "Normal", "Tick", str(number))
    assert len(events(store)) <= 5


def test_two_recorders_of_one_store_stay_near_the_limit(store: MemoryStore, clock: VirtualClock) -> None:
    model = a_model(store)
    recorders = [EventRecorder(store, clock, per_namespace_max=20) for _ in range(2)]
    for number in range(200):
        recorders[number % 2].record(model, "Normal", "Tick", str(number))
        assert len(events(store)) <= 22


def test_a_long_name_and_a_long_message_fit(store: MemoryStore, clock: VirtualClock) -> None:
    event = EventRecorder(store, clock).record(a_model(store, "n" * 253), "Normal", "Long", "m" * 5000)
    assert len(event["metadata"]["name"]) <= 253
    assert len(event["spec"]["message"]) == 1024
