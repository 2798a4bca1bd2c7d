"""What every store does: the interface of `hekla.platform.store.interface`, held against both twins."""

from __future__ import annotations

import pytest

from hekla.platform.api.meta import Json, Ref
from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.errors import AlreadyExists, BadRequest, Conflict, Invalid, NotFound
from hekla.platform.base.limits import API_BODY_BYTES_MAX
from hekla.platform.store.interface import Store


def a_model(name: str = "llama", namespace: str = "default", kind: str = "Model", **metadata: object) -> Json:
    meta = {"name": name, "namespace": namespace, **metadata}
    return {"apiVersion": "test/v1", "kind": kind, "metadata": meta, "spec": {"replicas": 1}}


def ref(name: str = "llama", namespace: str = "default", kind: str = "Model") -> Ref:
    return Ref(kind, namespace, name)


def version(obj: Json) -> int:
    return int(obj["metadata"]["resourceVersion"])


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
