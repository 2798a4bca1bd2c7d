"""`POST /hekla/v1/apply`: a batch, all or nothing."""

from __future__ import annotations

from typing import Any

import pytest

from hekla.platform.server.writes import APPLY_OBJECTS_MAX

APPLY = "/hekla/v1/apply"


async def actions(api: Any, *objects: Any, dry_run: bool = False) -> list[str]:
    answer = await api.http.post(APPLY, json={"objects": list(objects), "dryRun": dry_run})
    assert answer.status_code == 200, answer.text
    return [result["action"] for result in answer.json()["results"]]


async def test_the_first_apply_creates_the_second_changes_nothing_an_edit_configures(api: Any) -> None:
    assert await actions(api, api.model_serving()) == ["created"]
    version = api.store.list("ModelServing").resource_version
    assert await actions(api, api.model_serving()) == ["unchanged"]
    assert api.store.list("ModelServing").resource_version == version
    assert await actions(api, api.model_serving(replicas=2), api.model_serving("new")) == ["configured", "created"]


async def test_labels_are_merged_and_the_spec_is_replaced(api: Any) -> None:
    first = api.model_serving(labels={"kept": "1", "changed": "1"})
    first["spec"]["schedulerName"] = "mine"
    await actions(api, first)
    assert await actions(api, api.model_serving(labels={"changed": "2"})) == ["configured"]
    (obj,) = api.store.list("ModelServing").items
    assert obj["metadata"]["labels"] == {"kept": "1", "changed": "2"}
    assert obj["spec"]["schedulerName"] == "volcano"


async def test_one_bad_object_stops_the_whole_batch(api: Any) -> None:
    answer = await api.http.post(APPLY, json={"objects": [api.model_serving(), api.model_serving("bad", replicas=-1)]})
    assert (answer.status_code, answer.json()["reason"]) == (422, "Invalid")
    assert "bad" in answer.json()["message"]
    assert api.store.list("ModelServing").items == []


async def test_a_conflict_in_the_middle_takes_the_beginning_back(api: Any) -> None:
    await api.create("old")
    stale = api.model_serving("old", replicas=5, resourceVersion="999")
    answer = await api.http.post(APPLY, json={"objects": [api.model_serving("new"), stale]})
    assert (answer.status_code, answer.json()["reason"]) == (409, "Conflict")
    assert [obj["metadata"]["name"] for obj in api.store.list("ModelServing").items] == ["old"]


async def test_a_dry_run_says_what_would_happen(api: Any) -> None:
    await actions(api, api.model_serving("there"))
    version = api.store.list("ModelServing").resource_version
    batch = (
        api.model_serving("new"),
        api.model_serving("there"),
    )
    assert await actions(api, *batch, dry_run=True) == ["created", "unchanged"]
    assert api.store.list("ModelServing").resource_version == version


async def test_an_object_that_is_being_deleted_is_not_brought_back(api: Any) -> None:
    await api.create(finalizers=["hekla.io/engines"])
    await api.http.delete(f"{api.servings}/chat")
    answer = await api.http.post(APPLY, json={"objects": [api.model_serving()]})
    assert (answer.status_code, "being deleted" in answer.json()["message"]) == (409, True)


async def test_what_hekla_writes_itself_cannot_be_applied(api: Any) -> None:
    answer = await api.http.post(APPLY, json={"objects": [api.engine()]})
    assert (answer.status_code, answer.json()["reason"]) == (405, "MethodNotAllowed")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "objects"),
        ({"objects": {}}, "objects"),
        ({"objects": [1]}, "objects"),
        ({"objects": [], "dryRun": "yes"}, "dryRun"),
        ({"objects": [], "dry": True}, "dry"),
        ({"objects": [{}] * (APPLY_OBJECTS_MAX + 1)}, "objects"),
    ],
)
async def test_a_body_that_is_no_batch_is_a_bad_request(api: Any, body: Any, field: str) -> None:
    answer = await api.http.post(APPLY, json=body)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(field)
