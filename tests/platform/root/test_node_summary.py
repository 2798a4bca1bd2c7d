"""The cluster at a glance, from objects in every state they can be in."""

from __future__ import annotations

from typing import Any

import pytest

from hekla.platform.api.meta import Json
from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.ids import SeededIds
from hekla.platform.cluster.interface import Node
from hekla.platform.root.node_summary import summarize
from hekla.platform.root.settings import PlatformSettings
from hekla.platform.store.memory import MemoryStore

NODE = Node("n1", "gpu-box", "10.0.0.1", {"CPU": 8.0, "node:10.0.0.1": 1.0, "object_store_memory": 1e9}, {"CPU": 6.0})


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(VirtualClock(), SeededIds(1))


def made(store: MemoryStore, kind: str, name: str, spec: Json, status: Json | None = None, **meta: Any) -> None:
    group = {"Engine": "hekla.io", "ModelServing": "workload.serving.volcano.sh"}.get(
        kind, "networking.serving.volcano.sh"
    )
    obj = store.create(
        {
            "apiVersion": f"{group}/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": "default", **meta},
            "spec": spec,
        }
    )
    if status is not None:
        store.update_status({**obj, "status": status})


def pool(store: MemoryStore) -> None:
    rule = {"targetModels": [{"modelServerName": "pool"}]}
    made(store, "ModelRoute", "chat", {"modelName": "chat", "rules": [rule]})
    made(store, "ModelServer", "pool", {"workloadSelector": {"matchLabels": {"app": "chat"}}})


def engine(store: MemoryStore, name: str, status: Json | None, node: str = "") -> None:
    made(store, "Engine", name, {"role": "server", "node": node}, status, labels={"app": "chat"})


def summary(store: MemoryStore) -> Json:
    return summarize(store, [NODE], PlatformSettings(host="0.0.0.0", port=8001))


def test_an_empty_platform_has_nodes_and_an_endpoint_that_can_be_called(store: MemoryStore) -> None:
    found = summary(store)
    assert found["endpoint"] == "http://127.0.0.1:8001"
    assert found["nodes"] == [
        {"id": "n1", "name": "gpu-box", "address": "10.0.0.1", "head": False, "engines": 0,
         "total": {"CPU": 8.0}, "free": {"CPU": 6.0}}
    ]  # fmt: skip
    assert found["models"] == found["engines"] == []


def test_engines_are_counted_by_node_and_by_readiness(store: MemoryStore) -> None:
    pool(store)
    engine(store, "a", {"phase": "Ready", "pid": 7, "address": "http://10.0.0.1:1"}, node="n1")
    engine(store, "b", {"phase": "Fetching", "message": "40 %"}, node="n1")
    engine(store, "c", {"phase": "Ready"}, node="gone")
    found = summary(store)
    assert found["nodes"][0]["engines"] == 2
    (model,) = found["models"]
    assert (model["enginesReady"], model["engines"], model["message"]) == (2, 3, "b: 40 %")
    assert found["totals"] | {"resourceVersion": ""} == {
        "nodes": 1, "engines": 3, "enginesReady": 2, "servings": 0, "resourceVersion": ""
    }  # fmt: skip


def test_an_engine_without_a_status_yet_is_pending(store: MemoryStore) -> None:
    pool(store)
    engine(store, "a", None)
    found = summary(store)
    assert found["engines"][0]["phase"] == "Pending"
    assert found["models"][0]["message"] == ""


def unplaced(store: MemoryStore, name: str, app: str, message: str) -> None:
    condition = {"type": "Schedulable", "status": "False", "reason": "Unschedulable", "message": message}
    role = {"name": "server", "entryTemplate": {"metadata": {"labels": {"app": app}}}}
    made(store, "ModelServing", name, {"template": {"roles": [role]}}, {"conditions": [condition]})


def test_without_any_engine_the_message_says_why_its_own_could_not_be_placed(store: MemoryStore) -> None:
    pool(store)
    unplaced(store, "another", "elsewhere", "NPU is short")
    assert summary(store)["models"][0]["message"] == ""
    unplaced(store, "chat", "chat", "GPU is short")
    assert summary(store)["models"][0]["message"] == "GPU is short"


def test_a_route_to_an_external_provider_and_one_of_adapters_only_are_shown(store: MemoryStore) -> None:
    made(store, "ModelRoute", "far", {"modelName": "far", "rules": [{"targetModels": [{"externalModelProviderName": "x"}]}]})  # fmt: skip
    made(store, "ModelRoute", "loras", {"loraAdapters": ["one", "two"], "rules": [{"targetModels": [{"modelServerName": "nobody"}]}]})  # fmt: skip
    assert [model["name"] for model in summary(store)["models"]] == ["far", "one, two"]
