"""Objects over HTTP, the way kubectl and its libraries treat them."""

from __future__ import annotations

from typing import Any

import pytest

from hekla.platform.base.limits import API_BODY_BYTES_MAX


async def test_a_created_object_has_what_the_server_gives_it(api: Any) -> None:
    created = await api.create()
    assert created["metadata"]["generation"] == 1
    assert created["metadata"]["uid"]
    assert (await api.http.get(f"{api.servings}/chat")).json() == created


async def test_creating_twice_is_already_exists(api: Any) -> None:
    await api.create()
    answer = await api.http.post(api.servings, json=api.model_serving())
    assert (answer.status_code, answer.json()["reason"]) == (409, "AlreadyExists")


async def test_an_object_that_is_not_there_is_not_found(api: Any) -> None:
    answer = await api.http.get(f"{api.servings}/nobody")
    status = answer.json()
    assert (answer.status_code, status["kind"], status["reason"]) == (404, "Status", "NotFound")
    assert "nobody" in status["message"]


async def test_an_unknown_resource_is_not_found(api: Any) -> None:
    answer = await api.http.get("/apis/workload.serving.volcano.sh/v1alpha1/namespaces/default/surprises")
    assert (answer.status_code, answer.json()["reason"]) == (404, "NotFound")


@pytest.mark.parametrize("path", ["/nothing", "/apis/a/b/c/d", "/hekla/v1/nothing"])
async def test_an_unknown_path_is_a_status_too(api: Any, path: str) -> None:
    answer = await api.http.get(path)
    assert (answer.status_code, answer.json()["kind"], answer.json()["reason"]) == (404, "Status", "NotFound")


async def test_a_method_nobody_serves_is_method_not_allowed(api: Any) -> None:
    answer = await api.http.delete(api.servings)
    assert (answer.status_code, answer.json()["reason"]) == (405, "MethodNotAllowed")


async def test_an_invalid_object_names_every_field(api: Any) -> None:
    wrong = api.model_serving(replicas=-1)
    wrong["spec"]["surprise"] = 1
    answer = await api.http.post(api.servings, json=wrong)
    assert (answer.status_code, answer.json()["reason"]) == (422, "Invalid")
    assert {"spec.replicas", "spec.surprise"} <= {c["field"] for c in answer.json()["details"]["causes"]}


async def test_an_update_with_a_stale_version_is_a_conflict(api: Any) -> None:
    first = await api.create()
    assert (await api.patch(f"{api.servings}/chat", {"spec": {"replicas": 2}})).status_code == 200
    first["spec"]["replicas"] = 3
    answer = await api.http.put(f"{api.servings}/chat", json=first)
    assert (answer.status_code, answer.json()["reason"]) == (409, "Conflict")
    assert api.store.list("ModelServing").items[0]["spec"]["replicas"] == 2


async def test_a_replace_with_the_current_version_grows_the_generation(api: Any) -> None:
    obj = await api.create()
    obj["spec"]["replicas"] = 3
    answer = await api.http.put(f"{api.servings}/chat", json=obj)
    assert answer.status_code == 200
    assert answer.json()["metadata"]["generation"] == 2


async def test_replacing_what_is_not_there_is_not_found(api: Any) -> None:
    assert (await api.http.put(f"{api.servings}/chat", json=api.model_serving())).status_code == 404


async def test_a_merge_patch_changes_only_what_it_names(api: Any) -> None:
    before = await api.create(labels={"a": "1", "b": "2"})
    answer = await api.patch(f"{api.servings}/chat", {"metadata": {"labels": {"a": None, "c": "3"}}})
    after = answer.json()
    assert after["metadata"]["labels"] == {"b": "2", "c": "3"}
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == 1


async def test_a_patch_that_breaks_the_rules_changes_nothing(api: Any) -> None:
    before = await api.create()
    answer = await api.patch(f"{api.servings}/chat", {"spec": {"replicas": "many"}})
    assert answer.status_code == 422
    assert (await api.http.get(f"{api.servings}/chat")).json() == before


async def test_a_patch_cannot_rename(api: Any) -> None:
    await api.create()
    answer = await api.patch(f"{api.servings}/chat", {"metadata": {"name": "other"}})
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")


async def test_a_patch_of_another_type_is_refused_with_what_is_allowed(api: Any) -> None:
    await api.create()
    headers = {"content-type": "application/strategic-merge-patch+json"}
    answer = await api.http.patch(f"{api.servings}/chat", content="{}", headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (415, "UnsupportedMediaType")
    assert "application/merge-patch+json" in answer.json()["message"]


@pytest.mark.parametrize(
    ("field", "edit"),
    [
        ("metadata.namespace", {"metadata": {"name": "chat", "namespace": "other"}}),
        ("kind", {"kind": "ModelRoute"}),
        ("apiVersion", {"apiVersion": "apps/v1"}),
    ],
)
async def test_a_body_that_contradicts_its_path_is_a_bad_request(api: Any, field: str, edit: Any) -> None:
    answer = await api.http.post(api.servings, json={**api.model_serving(), **edit})
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")
    assert answer.json()["message"].startswith(field)


@pytest.mark.parametrize("body", ["{", "[]", '"text"', "", '{"a": NaN}', "[" * 100_000])
async def test_a_body_that_is_no_json_object_is_a_bad_request(api: Any, body: str) -> None:
    answer = await api.http.post(api.servings, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")


async def test_a_body_over_the_limit_is_refused_with_the_limit(api: Any) -> None:
    answer = await api.http.post(api.servings, content=b" " * (API_BODY_BYTES_MAX + 1))
    assert (answer.status_code, answer.json()["reason"]) == (413, "RequestEntityTooLarge")
    assert str(API_BODY_BYTES_MAX) in answer.json()["message"]


async def test_a_dry_run_answers_the_same_and_changes_nothing(api: Any) -> None:
    answer = await api.http.post(api.servings, params={"dryRun": "All"}, json=api.model_serving())
    assert answer.status_code == 201
    assert api.store.list("ModelServing").items == []
    assert (await api.http.post(api.servings, params={"dryRun": "yes"}, json=api.model_serving())).status_code == 400


async def test_deleting_an_object_takes_what_it_owns_along(api: Any) -> None:
    owner = await api.create("owner")
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": "ModelServing",
        "name": "owner",
        "uid": owner["metadata"]["uid"],
    }
    await api.create("owned", ownerReferences=[reference])
    answer = await api.http.delete(f"{api.servings}/owner", params={"propagationPolicy": "Background"})
    assert (answer.json()["kind"], answer.json()["status"]) == ("Status", "Success")
    assert api.store.list("ModelServing").items == []


async def test_deleting_an_object_with_finalizers_returns_it_marked(api: Any) -> None:
    await api.create(finalizers=["hekla.io/engines"])
    answer = await api.http.delete(f"{api.servings}/chat")
    assert answer.json()["metadata"]["deletionTimestamp"]
    assert (await api.http.get(f"{api.servings}/chat")).status_code == 200


async def test_a_delete_may_insist_on_an_uid(api: Any) -> None:
    obj = await api.create()
    wrong = {"preconditions": {"uid": "another"}}
    answer = await api.http.request("DELETE", f"{api.servings}/chat", json=wrong)
    assert (answer.status_code, answer.json()["reason"]) == (409, "Conflict")
    right = {"preconditions": {"uid": obj["metadata"]["uid"]}}
    assert (await api.http.request("DELETE", f"{api.servings}/chat", json=right)).status_code == 200


async def test_other_propagation_policies_are_refused(api: Any) -> None:
    await api.create()
    answer = await api.http.delete(f"{api.servings}/chat", params={"propagationPolicy": "Orphan"})
    assert (answer.status_code, "Background" in answer.json()["message"]) == (400, True)


async def test_a_list_selects_by_label_field_and_namespace(api: Any) -> None:
    await api.create("one", labels={"team": "a", "x": "1"})
    await api.create("two", labels={"team": "b"})
    elsewhere = api.servings.replace("/default/", "/other/")
    assert (await api.http.post(elsewhere, json=api.model_serving("three", labels={"team": "a"}))).status_code == 201
    everywhere = "/apis/workload.serving.volcano.sh/v1alpha1/modelservings"

    async def names(path: str, **params: str) -> list[str]:
        answer = (await api.http.get(path, params=params)).json()
        assert answer["kind"] == "ModelServingList"
        return [item["metadata"]["name"] for item in answer["items"]]

    assert await names(api.servings) == ["one", "two"]
    assert await names(everywhere) == ["one", "two", "three"]
    assert await names(everywhere, labelSelector="team=a") == ["one", "three"]
    assert await names(api.servings, labelSelector="team==a,x=1") == ["one"]
    assert await names(everywhere, fieldSelector="metadata.name=three") == ["three"]


@pytest.mark.parametrize(
    "params", [{"labelSelector": "a!=b"}, {"labelSelector": "a in (b)"}, {"fieldSelector": "spec.replicas=1"}]
)
async def test_a_selector_that_is_not_understood_is_refused_not_ignored(api: Any, params: dict[str, str]) -> None:
    answer = await api.http.get(api.servings, params=params)
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")
    assert next(iter(params)) in answer.json()["message"]


async def test_internal_kinds_are_read_only(api: Any) -> None:
    api.store.create(api.engine())
    path = "/apis/hekla.io/v1alpha1/namespaces/default/engines"
    assert len((await api.http.get(path)).json()["items"]) == 1
    one = f"{path}/chat-0-a-0-0"
    tries = [
        await api.http.post(path, json=api.engine("new")),
        await api.http.put(one, json=api.engine()),
        await api.patch(one, {}),
        await api.http.delete(one),
        await api.patch(f"{one}/status", {"status": {"phase": "Ready"}}),
    ]
    assert [(answer.status_code, answer.json()["reason"]) for answer in tries] == [(405, "MethodNotAllowed")] * 5


async def test_status_is_written_apart_from_spec(api: Any) -> None:
    obj = await api.create()
    obj["spec"]["replicas"] = 9
    obj["status"] = {"replicas": 1}
    put = (await api.http.put(f"{api.servings}/chat/status", json=obj)).json()
    assert (put["spec"]["replicas"], put["status"], put["metadata"]["generation"]) == (1, {"replicas": 1}, 1)
    patched = (await api.patch(f"{api.servings}/chat/status", {"status": {"ready": 2}, "spec": {"replicas": 7}})).json()
    assert (patched["spec"]["replicas"], patched["status"]) == (1, {"replicas": 1, "ready": 2})
    assert (await api.http.get(f"{api.servings}/chat/status")).json() == patched


async def test_a_stale_status_is_a_conflict_and_a_create_carries_none(api: Any) -> None:
    old = (await api.http.post(api.servings, json={**api.model_serving(), "status": {"replicas": 5}})).json()
    assert not old.get("status")
    await api.patch(f"{api.servings}/chat", {"spec": {"replicas": 2}})
    answer = await api.http.put(f"{api.servings}/chat/status", json={**old, "status": {"a": 1}})
    assert (answer.status_code, answer.json()["reason"]) == (409, "Conflict")


async def test_scale_reads_and_writes_the_replica_count(api: Any) -> None:
    await api.create()
    path = f"{api.servings}/chat/scale"
    scale = (await api.http.get(path)).json()
    assert (scale["apiVersion"], scale["kind"], scale["spec"]["replicas"]) == ("autoscaling/v1", "Scale", 1)
    assert (await api.patch(path, {"spec": {"replicas": 3}})).json()["spec"]["replicas"] == 3
    stale = await api.http.put(path, json={**scale, "spec": {"replicas": 4}})
    assert (stale.status_code, stale.json()["reason"]) == (409, "Conflict")
    fresh = (await api.http.get(path)).json()
    assert (await api.http.put(path, json={**fresh, "spec": {"replicas": 4}})).status_code == 200
    assert (await api.http.get(f"{api.servings}/chat")).json()["spec"]["replicas"] == 4


@pytest.mark.parametrize("replicas", [-1, "many", 1.5, True])
async def test_a_scale_that_is_no_count_is_invalid(api: Any, replicas: Any) -> None:
    await api.create()
    answer = await api.patch(f"{api.servings}/chat/scale", {"spec": {"replicas": replicas}})
    assert (answer.status_code, answer.json()["details"]["causes"][0]["field"]) == (422, "spec.replicas")


async def test_a_kind_without_replicas_has_no_scale(api: Any) -> None:
    path = "/apis/networking.serving.volcano.sh/v1alpha1/namespaces/default/modelroutes/x/scale"
    assert (await api.http.get(path)).status_code == 404


async def test_a_closed_store_is_unavailable_with_a_time_to_come_back(api: Any) -> None:
    api.store.close()
    answer = await api.http.get(api.servings)
    assert (answer.status_code, answer.json()["reason"]) == (503, "ServiceUnavailable")
    assert int(answer.headers["retry-after"]) >= 1
