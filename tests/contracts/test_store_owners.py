"""What every store does with owned objects: they go when their last owner goes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from hekla.platform.api.meta import Json, Ref, owner_reference
from hekla.platform.base.errors import Conflict
from hekla.platform.store.interface import Store


def a_model(name: str = "llama", namespace: str = "default", kind: str = "Model", **metadata: object) -> Json:
    meta = {"name": name, "namespace": namespace, **metadata}
    return {"apiVersion": "test/v1", "kind": kind, "metadata": meta, "spec": {"replicas": 1}}


def ref(name: str = "llama", namespace: str = "default", kind: str = "Model") -> Ref:
    return Ref(kind, namespace, name)


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


async def test_a_cascade_is_told_owner_first(store: Store) -> None:
    root = store.create(a_model())
    child = store.create(owned("child", root))
    store.create(owned("grandchild", child))
    watch = store.watch(())
    store.delete(ref())
    async with asyncio.timeout(5):
        events = [await anext(watch) for _ in range(3)]
    assert [event.type for event in events] == ["DELETED"] * 3
    assert [event.object["metadata"]["name"] for event in events] == ["llama", "child", "grandchild"]
