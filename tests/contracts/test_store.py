"""What every store does: the interface of `hekla.platform.store.interface`, held against both twins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from hekla.platform.api.meta import Json, Ref, owner_reference
from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.errors import AlreadyExists, BadRequest, Conflict, Gone, Invalid, NotFound, Unavailable
from hekla.platform.base.ids import SeededIds
from hekla.platform.base.limits import API_BODY_BYTES_MAX, WATCH_HISTORY_EVENTS_MAX, WATCH_QUEUE_EVENTS_MAX
from hekla.platform.store.interface import Store, Watch, WatchEvent
from hekla.platform.store.memory import MemoryStore
from hekla.platform.store.sqlite import SqliteStore
from hekla.platform.store.watcher import BOOKMARK_CHANGES

MakeStore = Callable[[VirtualClock], Store]


@pytest.fixture(params=["memory", "sqlite"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    if request.param == "memory":
        return lambda clock: MemoryStore(clock, SeededIds(1))
    return lambda clock: SqliteStore(tmp_path / "store.db", clock, SeededIds(1))


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(start=1_750_000_000.0)


@pytest.fixture
def store(make_store: MakeStore, clock: VirtualClock) -> Iterator[Store]:
    made = make_store(clock)
    yield made
    made.close()


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


# Creating and reading


def test_a_created_object_gets_uid_generation_version_and_creation_time(store: Store) -> None:
    meta = store.create(a_model())["metadata"]
    assert len(meta["uid"]) == 36
    assert (meta["generation"], meta["resourceVersion"]) == (1, "1")
    assert meta["creationTimestamp"] == "2025-06-15T15:06:40Z"


def test_a_created_object_is_read_back_equal(store: Store) -> None:
    created = store.create({**a_model(labels={"a": "b"}), "status": {"phase": "New"}})
    assert store.get(ref()) == created
    assert created["status"] == {"phase": "New"}


def test_create_ignores_what_only_the_store_writes(store: Store) -> None:
    meta = store.create(a_model(uid="x", generation=9, resourceVersion="7", deletionTimestamp="now"))["metadata"]
    assert meta["uid"] != "x"
    assert (meta["generation"], meta["resourceVersion"]) == (1, "1")
    assert "deletionTimestamp" not in meta


def test_an_object_without_namespace_is_in_default(store: Store) -> None:
    store.create({"kind": "Model", "metadata": {"name": "llama"}})
    assert store.get(ref())["metadata"]["namespace"] == "default"


def test_creating_a_name_twice_is_already_exists(store: Store) -> None:
    store.create(a_model())
    with pytest.raises(AlreadyExists, match="Model default/llama already exists"):
        store.create(a_model())


def test_the_same_name_in_another_namespace_or_kind_is_another_object(store: Store) -> None:
    objects = [a_model(), a_model(namespace="other"), a_model(kind="Route")]
    assert len({store.create(obj)["metadata"]["uid"] for obj in objects}) == 3


@pytest.mark.parametrize(
    "obj, field",
    [
        ({"metadata": {"name": "a"}}, "kind"),
        ({"kind": "Model"}, "metadata"),
        ({"kind": "Model", "metadata": {}}, "metadata.name"),
        ({"kind": "Model", "metadata": {"name": "a", "namespace": 3}}, "metadata.namespace"),
        ({"kind": "Model", "metadata": {"name": "a"}, "spec": {"x": float("nan")}}, "not JSON"),
        ({"kind": "Model", "metadata": {"name": "a"}, "spec": {"x": {1, 2}}}, "not JSON"),
    ],
)
def test_what_names_no_place_or_is_not_json_is_a_bad_request(store: Store, obj: Json, field: str) -> None:
    with pytest.raises(BadRequest, match=field):
        store.create(obj)
    assert store.list("Model").items == []


def test_an_object_over_the_size_limit_is_invalid_and_names_the_limit(store: Store) -> None:
    with pytest.raises(Invalid, match=str(API_BODY_BYTES_MAX)):
        store.create({**a_model(), "spec": {"text": "x" * API_BODY_BYTES_MAX}})
    assert store.list("Model").resource_version == "0"


def test_any_unicode_text_is_kept_even_half_of_a_pair(store: Store) -> None:
    store.create({**a_model(), "spec": {"text": "héklä \ud800 \x00 🌋"}})
    assert store.get(ref())["spec"]["text"] == "héklä \ud800 \x00 🌋"


def test_getting_what_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound, match="Model default/llama not found"):
        store.get(ref())


def test_a_caller_who_changes_its_copy_does_not_change_the_store(store: Store) -> None:
    mine = a_model()
    created = store.create(mine)
    mine["spec"]["replicas"] = created["spec"]["replicas"] = store.get(ref())["spec"]["replicas"] = 99
    store.list("Model").items[0]["spec"]["replicas"] = 99
    assert store.get(ref())["spec"]["replicas"] == 1


# Listing


def test_a_list_is_by_namespace_then_name_and_of_one_kind(store: Store) -> None:
    for name, namespace in [("b", "x"), ("a", "x"), ("z", "a"), ("B", "x")]:
        store.create(a_model(name, namespace))
    store.create(a_model(kind="Route"))
    found = [(o["metadata"]["namespace"], o["metadata"]["name"]) for o in store.list("Model").items]
    assert found == [("a", "z"), ("x", "B"), ("x", "a"), ("x", "b")]
    assert [o["metadata"]["name"] for o in store.list("Model", "a").items] == ["z"]
    assert store.list("Nothing").items == []


def test_a_list_by_labels_wants_all_of_them(store: Store) -> None:
    store.create(a_model("a", labels={"app": "x", "tier": "1"}))
    store.create(a_model("b", labels={"app": "x"}))
    store.create(a_model("c"))
    assert [o["metadata"]["name"] for o in store.list("Model", labels={"app": "x"}).items] == ["a", "b"]
    assert [o["metadata"]["name"] for o in store.list("Model", labels={"app": "x", "tier": "1"}).items] == ["a"]


def test_a_lists_version_is_the_whole_stores(store: Store) -> None:
    store.create(a_model())
    store.create(a_model(kind="Route"))
    assert store.list("Model").resource_version == "2"


# Updating


def test_a_new_spec_is_a_new_generation_and_version(store: Store) -> None:
    obj = store.create(a_model())
    obj["spec"]["replicas"] = 2
    updated = store.update(obj)
    assert (updated["metadata"]["generation"], version(updated)) == (2, 2)
    assert store.get(ref()) == updated


def test_new_labels_are_a_new_version_of_the_same_generation(store: Store) -> None:
    obj = store.create(a_model())
    obj["metadata"]["labels"] = {"a": "b"}
    updated = store.update(obj)
    assert (updated["metadata"]["generation"], version(updated)) == (1, 2)


def test_an_update_without_change_keeps_the_version_and_tells_nobody(store: Store) -> None:
    obj = store.create(a_model())
    watch = store.watch(("Model",))
    assert store.update(obj) == obj
    assert store.update({**obj, "metadata": {**obj["metadata"], "labels": {}, "finalizers": []}}) == obj
    assert watch.pending == 0


def test_one_and_true_are_different_values(store: Store) -> None:
    obj = store.create({**a_model(), "spec": {"flag": True}})
    updated = store.update({**obj, "spec": {"flag": 1}})
    assert updated["spec"]["flag"] is not True
    assert updated["metadata"]["generation"] == 2


def test_an_update_leaves_the_status_alone(store: Store) -> None:
    obj = store.create({**a_model(), "status": {"phase": "Ready"}})
    updated = store.update({**obj, "spec": {"replicas": 3}, "status": {"phase": "Hacked"}})
    assert updated["status"] == {"phase": "Ready"}
    del obj["status"]
    obj["metadata"]["resourceVersion"] = ""
    assert store.update(obj)["status"] == {"phase": "Ready"}


def test_an_update_with_a_stale_version_is_a_conflict(store: Store) -> None:
    obj = store.create(a_model())
    store.update({**obj, "spec": {"replicas": 2}})
    with pytest.raises(Conflict, match=r"resourceVersion is 1, the stored one is 2"):
        store.update({**obj, "spec": {"replicas": 3}})
    assert store.get(ref())["spec"] == {"replicas": 2}


def test_an_update_without_a_version_overwrites(store: Store) -> None:
    store.create(a_model())
    store.update({**a_model(), "spec": {"replicas": 2}})
    assert store.update({**a_model(), "spec": {"replicas": 3}})["spec"] == {"replicas": 3}


def test_an_update_meant_for_another_uid_is_a_conflict(store: Store) -> None:
    old = store.create(a_model())
    store.delete(ref())
    store.create(a_model())
    old["metadata"]["resourceVersion"] = ""
    for write in (store.update, store.update_status):
        with pytest.raises(Conflict, match="another object of that name"):
            write(old)
    with pytest.raises(Conflict, match="another object of that name"):
        store.delete(ref(), uid=old["metadata"]["uid"])


def test_uid_creation_time_and_generation_cannot_be_written(store: Store) -> None:
    meta = store.create(a_model())["metadata"]
    new = store.update(a_model(creationTimestamp="1999-01-01T00:00:00Z", generation=40, labels={"a": "b"}))["metadata"]
    assert (new["uid"], new["creationTimestamp"], new["generation"]) == (meta["uid"], meta["creationTimestamp"], 1)


def test_updating_what_is_not_there_is_not_found(store: Store) -> None:
    for write in (store.update, store.update_status):
        with pytest.raises(NotFound):
            write(a_model())
    with pytest.raises(NotFound):
        store.delete(ref())


def test_a_status_update_changes_only_the_status(store: Store) -> None:
    obj = store.create(a_model())
    obj["spec"], obj["status"], obj["metadata"]["labels"] = {"replicas": 9}, {"phase": "Ready"}, {"a": "b"}
    updated = store.update_status(obj)
    assert (updated["spec"], updated["status"]) == ({"replicas": 1}, {"phase": "Ready"})
    assert "labels" not in updated["metadata"]
    assert (updated["metadata"]["generation"], version(updated)) == (1, 2)


def test_a_status_update_without_change_keeps_the_version(store: Store) -> None:
    store.create(a_model())
    first = store.update_status({**a_model(), "status": {"a": 1}})
    assert store.update_status({**a_model(), "status": {"a": 1}}) == first


def test_a_status_update_with_a_stale_version_is_a_conflict(store: Store) -> None:
    obj = store.create(a_model())
    store.update_status({**obj, "status": {"a": 1}})
    with pytest.raises(Conflict):
        store.update_status({**obj, "status": {"a": 2}})


# Deleting


def test_a_deleted_object_is_gone_and_its_name_is_free(store: Store) -> None:
    first = store.create(a_model())
    deleted = store.delete(ref(), uid=first["metadata"]["uid"])
    assert version(deleted) == 2
    with pytest.raises(NotFound):
        store.get(ref())
    assert store.create(a_model())["metadata"]["uid"] != first["metadata"]["uid"]


async def test_an_object_with_finalizers_is_only_marked_and_goes_with_the_last(
    store: Store, clock: VirtualClock
) -> None:
    store.create(a_model(finalizers=["one", "two"]))
    await clock.advance(60)
    marked = store.delete(ref())
    assert marked["metadata"]["deletionTimestamp"] == "2025-06-15T15:07:40Z"
    assert marked["metadata"]["generation"] == 1
    marked["metadata"]["finalizers"] = ["two"]
    left = store.update(marked)
    assert left["metadata"]["deletionTimestamp"]
    left["metadata"]["finalizers"] = []
    last = store.update(left)
    assert version(last) == 4
    with pytest.raises(NotFound):
        store.get(ref())


def test_deleting_a_marked_object_again_changes_nothing(store: Store) -> None:
    store.create(a_model(finalizers=["one"]))
    assert store.delete(ref()) == store.delete(ref())


def test_a_marked_object_takes_no_new_finalizer_and_stays_marked(store: Store) -> None:
    store.create(a_model(finalizers=["one"]))
    marked = store.delete(ref())
    with pytest.raises(Invalid, match=r"metadata.finalizers: two"):
        store.update({**marked, "metadata": {**marked["metadata"], "finalizers": ["one", "two"]}})
    del marked["metadata"]["deletionTimestamp"]
    marked["metadata"]["labels"] = {"a": "b"}
    assert store.update(marked)["metadata"]["deletionTimestamp"]


# Owners


def owned(name: str, *owners: Json, finalizers: Sequence[str] = ()) -> Json:
    references = [owner_reference(owner) for owner in owners]
    return a_model(name, kind="Child", ownerReferences=references, finalizers=list(finalizers))


def children(store: Store) -> list[str]:
    return [obj["metadata"]["name"] for obj in store.list("Child").items]


def test_what_an_object_owns_goes_with_it_through_the_whole_chain(store: Store) -> None:
    root = store.create(a_model())
    child = store.create(owned("child", root))
    grandchild = store.create(owned("grandchild", child))
    store.create(owned("last", grandchild))
    store.create(a_model("bystander", kind="Child"))
    store.delete(ref())
    assert children(store) == ["bystander"]


def test_an_object_with_two_owners_goes_with_the_second_and_forgets_the_first(store: Store) -> None:
    one, two = store.create(a_model("one")), store.create(a_model("two"))
    store.create(owned("child", one, two))
    store.delete(ref("one"))
    left = store.get(ref("child", kind="Child"))
    assert [owner["name"] for owner in left["metadata"]["ownerReferences"]] == ["two"]
    store.delete(ref("two"))
    assert children(store) == []


def test_an_owner_that_never_was_keeps_nothing_alive(store: Store) -> None:
    one = store.create(a_model("one"))
    ghost = {**a_model("ghost"), "metadata": {"name": "ghost", "uid": "no-such-uid"}}
    store.create(owned("child", one, ghost))
    store.delete(ref("one"))
    assert children(store) == []


def test_a_child_with_finalizers_is_marked_and_its_own_children_wait_for_it(store: Store) -> None:
    root = store.create(a_model())
    child = store.create(owned("child", root, finalizers=["hold"]))
    store.create(owned("grandchild", child))
    store.delete(ref())
    assert children(store) == ["child", "grandchild"]
    marked = store.get(ref("child", kind="Child"))
    assert marked["metadata"]["deletionTimestamp"]
    store.update({**marked, "metadata": {**marked["metadata"], "finalizers": []}})
    assert children(store) == []


def test_an_owner_held_by_a_finalizer_keeps_its_children(store: Store) -> None:
    root = store.create(a_model(finalizers=["hold"]))
    store.create(owned("child", root))
    store.delete(ref())
    assert children(store) == ["child"]


def test_objects_that_own_each_other_go_together(store: Store) -> None:
    one = store.create(owned("one"))
    two = store.create(owned("two", one))
    store.update({**one, "metadata": {**one["metadata"], "ownerReferences": [owner_reference(two)]}})
    store.delete(ref("one", kind="Child"))
    assert children(store) == []


def test_a_new_owner_of_the_same_name_does_not_own_the_old_ones_children(store: Store) -> None:
    store.create(a_model())
    ghost = {**a_model(), "metadata": {"name": "llama", "uid": "another-uid"}}
    store.create(owned("child", ghost))
    store.delete(ref())
    assert children(store) == ["child"]


def test_a_child_that_comes_after_its_owners_end_is_a_conflict(store: Store) -> None:
    root = store.create(a_model())
    store.delete(ref())
    with pytest.raises(Conflict, match="was deleted"):
        store.create(owned("late", root))


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


async def test_a_cascade_is_told_owner_first(store: Store) -> None:
    root = store.create(a_model())
    child = store.create(owned("child", root))
    store.create(owned("grandchild", child))
    watch = store.watch(())
    store.delete(ref())
    assert names(await read(watch, 3)) == [("DELETED", "llama"), ("DELETED", "child"), ("DELETED", "grandchild")]


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
