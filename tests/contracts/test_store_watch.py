"""What every store's transactions and watches do: all or nothing, everything, in order."""

from __future__ import annotations

import asyncio

import pytest

from hekla.platform.api.meta import Json, Ref
from hekla.platform.base.errors import AlreadyExists, BadRequest, Gone, Unavailable
from hekla.platform.base.limits import WATCH_HISTORY_EVENTS_MAX, WATCH_QUEUE_EVENTS_MAX
from hekla.platform.store.interface import Store, Watch, WatchEvent
from hekla.platform.store.watcher import BOOKMARK_CHANGES


def a_model(name: str = "llama", namespace: str = "default", kind: str = "Model", **metadata: object) -> Json:
    meta = {"name": name, "namespace": namespace, **metadata}
    return {"apiVersion": "test/v1", "kind": kind, "metadata": meta, "spec": {"replicas": 1}}


def ref(name: str = "llama", namespace: str = "default", kind: str = "Model") -> Ref:
    return Ref(kind, namespace, name)


def version(obj: Json) -> int:
    return int(obj["metadata"]["resourceVersion"])


async def read(watch: Watch, count: int) -> list[WatchEvent]:
    return [await asyncio.wait_for(anext(watch), 5) for _ in range(count)]


def names(events: list[WatchEvent]) -> list[tuple[str, str]]:
    return [(event.type, event.object["metadata"]["name"]) for event in events]


# Transactions


def test_a_transaction_that_raises_leaves_nothing(store: Store) -> None:
    before = store.create(a_model("before"))
    watch = store.watch(())
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.create(a_model())
        store.update({**before, "spec": {"replicas": 7}})
        store.delete(ref())
        raise ZeroDivisionError
    assert store.list("Model").items == [before]
    assert (store.list("Model").resource_version, watch.pending) == ("1", 0)
    assert version(store.create(a_model())) == 2


async def test_watchers_see_nothing_before_the_commit_and_then_everything_in_order(store: Store) -> None:
    watch = store.watch(("Model",))
    with store.transaction():
        store.create(a_model("a"))
        store.create(a_model("b"))
        store.delete(ref("a"))
        assert watch.pending == 0
        assert [obj["metadata"]["name"] for obj in store.list("Model").items] == ["b"]
    assert names(await read(watch, 3)) == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]


def test_an_inner_transaction_that_raises_takes_back_only_itself(store: Store) -> None:
    with store.transaction():
        store.create(a_model("outer"))
        with pytest.raises(AlreadyExists), store.transaction():
            store.create(a_model("inner"))
            store.create(a_model("outer"))
        store.create(a_model("after"))
    found = store.list("Model")
    assert [obj["metadata"]["name"] for obj in found.items] == ["after", "outer"]
    assert found.resource_version == "2"


def test_an_outer_transaction_that_raises_takes_the_inner_back(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.transaction():
        with store.transaction():
            store.create(a_model())
        raise ZeroDivisionError
    assert store.list("Model").items == []


async def test_a_write_by_another_task_inside_a_transaction_is_refused(store: Store) -> None:
    with store.transaction():
        store.create(a_model("a"))
        with pytest.raises(RuntimeError, match="no await inside a transaction"):
            await asyncio.gather(_create(store, a_model("b")))
    assert [obj["metadata"]["name"] for obj in store.list("Model").items] == ["a"]


async def _create(store: Store, obj: Json) -> None:
    store.create(obj)


# Watching


async def test_a_watch_tells_what_happens_from_now_on(store: Store) -> None:
    store.create(a_model("before"))
    watch = store.watch(("Model",))
    obj = store.create(a_model())
    store.create(a_model(kind="Route"))
    store.update({**obj, "spec": {"replicas": 2}})
    store.delete(ref())
    events = await read(watch, 3)
    assert [event.type for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert [version(event.object) for event in events] == [2, 4, 5]
    assert events[2].object["spec"] == {"replicas": 2}


async def test_a_watch_of_no_kinds_is_of_all(store: Store) -> None:
    watch = store.watch(())
    store.create(a_model())
    store.create(a_model(kind="Route"))
    assert [event.object["kind"] for event in await read(watch, 2)] == ["Model", "Route"]


async def test_a_watch_since_a_version_repeats_what_came_after(store: Store) -> None:
    store.create(a_model("a"))
    since = store.list("Model").resource_version
    store.create(a_model("b"))
    watch = store.watch(("Model",), since)
    store.create(a_model("c"))
    assert names(await read(watch, 2)) == [("ADDED", "b"), ("ADDED", "c")]


async def test_each_watcher_gets_its_own_copy(store: Store) -> None:
    one, two = store.watch(()), store.watch(())
    store.create(a_model())
    (await anext(one)).object["spec"]["replicas"] = 99
    assert (await anext(two)).object["spec"] == {"replicas": 1}


async def test_a_reader_that_waits_is_woken(store: Store) -> None:
    watch = store.watch(("Model",))
    waiting = asyncio.gather(read(watch, 1))
    await asyncio.sleep(0)
    store.create(a_model())
    assert names((await waiting)[0]) == [("ADDED", "llama")]


async def test_a_cancelled_read_loses_no_event(store: Store) -> None:
    watch = store.watch(("Model",))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(watch), 0.01)
    store.create(a_model())
    assert names(await read(watch, 1)) == [("ADDED", "llama")]


def test_a_watch_since_a_forgotten_or_future_version_is_gone(store: Store) -> None:
    obj = store.create(a_model())
    with store.transaction():
        for number in range(WATCH_HISTORY_EVENTS_MAX):
            obj["metadata"]["resourceVersion"] = ""
            store.update({**obj, "spec": {"replicas": number + 2}})
    with pytest.raises(Gone, match="list again"):
        store.watch((), "0")
    assert store.watch((), "1").pending == WATCH_HISTORY_EVENTS_MAX
    with pytest.raises(Gone):
        store.watch((), "999999")


@pytest.mark.parametrize("since", ["", "-1", "latest", "1.5"])
def test_a_watch_since_no_number_is_a_bad_request(store: Store, since: str) -> None:
    with pytest.raises(BadRequest, match="resourceVersion"):
        store.watch((), since)


async def test_a_watcher_too_far_behind_is_cut_off_and_others_are_not(store: Store) -> None:
    slow, other = store.watch(("Model",)), store.watch(("Route",))
    obj = store.create(a_model())
    with store.transaction():
        for number in range(WATCH_QUEUE_EVENTS_MAX):
            obj["metadata"]["resourceVersion"] = ""
            store.update({**obj, "spec": {"replicas": number + 2}})
    with pytest.raises(Gone, match=str(WATCH_QUEUE_EVENTS_MAX)):
        await anext(slow)
    store.create(a_model(kind="Route"))
    assert [event.type for event in await read(other, 2)] == ["BOOKMARK", "ADDED"]


async def test_a_reader_that_waits_is_told_that_it_was_cut_off(store: Store) -> None:
    watch = store.watch(())
    waiting = asyncio.gather(read(watch, 1))
    await asyncio.sleep(0)
    store.create(a_model())
    with store.transaction():
        for number in range(WATCH_QUEUE_EVENTS_MAX + 1):
            store.update({**a_model(), "spec": {"replicas": number + 2}})
    with pytest.raises(Gone):
        await waiting
    assert watch.pending == 1


async def test_a_bookmark_follows_what_came_before_it(store: Store) -> None:
    watch = store.watch(("Model",))
    store.create(a_model())
    store.create(a_model(kind="Route"))
    watch.bookmark()
    events = await read(watch, 2)
    assert [event.type for event in events] == ["ADDED", "BOOKMARK"]
    assert events[1].object == {"kind": "Model", "metadata": {"resourceVersion": "2"}}


async def test_a_quiet_watch_learns_the_version_by_itself_and_can_resume_there(store: Store) -> None:
    watch = store.watch(("Model",))
    obj = store.create(a_model(kind="Route"))
    for number in range(BOOKMARK_CHANGES - 1):
        obj["metadata"]["resourceVersion"] = ""
        store.update({**obj, "spec": {"replicas": number + 2}})
    (event,) = await read(watch, 1)
    assert event.type == "BOOKMARK"
    assert event.object["metadata"]["resourceVersion"] == str(BOOKMARK_CHANGES)
    assert store.watch(("Model",), str(BOOKMARK_CHANGES)).pending == 0


async def test_a_closed_watch_ends(store: Store) -> None:
    watch = store.watch(())
    store.create(a_model())
    await watch.aclose()
    assert [event async for event in watch] == []


async def test_an_ended_watch_still_gives_what_it_has(store: Store) -> None:
    watch = store.watch(())
    store.create(a_model("a"))
    watch.end()
    store.create(a_model("b"))
    watch.bookmark()
    assert names([event async for event in watch]) == [("ADDED", "a")]


async def test_closing_the_store_ends_watches_after_what_they_have(store: Store) -> None:
    watch = store.watch(())
    store.create(a_model())
    store.close()
    assert [event.type async for event in watch] == ["ADDED"]
    with pytest.raises(Unavailable, match="closed"):
        store.get(ref())


def test_a_reader_whose_loop_is_gone_harms_no_writer(store: Store) -> None:
    watch = store.watch(())
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # "Task was destroyed but it is pending" is what this test makes
    reading = loop.create_task(read(watch, 1))
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    store.create(a_model())
    assert watch.pending == 1
    del reading
