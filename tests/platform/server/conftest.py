"""The resource API without a socket, over a store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from hekla.platform.api.meta import Json
from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.ids import SeededIds
from hekla.platform.server.app import build_app
from hekla.platform.server.engine_logs import FakeLogSource
from hekla.platform.store.memory import MemoryStore

SERVINGS = "/apis/workload.serving.volcano.sh/v1alpha1/namespaces/default/modelservings"


def model_serving(name: str = "chat", replicas: int = 1, **metadata: Any) -> Json:
    container = {"name": "engine", "image": "sim"}
    role = {"name": "a", "replicas": 1, "workerReplicas": 0, "entryTemplate": {"spec": {"containers": [container]}}}
    return {
        "apiVersion": "workload.serving.volcano.sh/v1alpha1",
        "kind": "ModelServing",
        "metadata": {"name": name, **metadata},
        "spec": {"replicas": replicas, "template": {"roles": [role]}},
    }


def engine(name: str = "chat-0-a-0-0", namespace: str = "default") -> Json:
    return {
        "apiVersion": "hekla.io/v1alpha1",
        "kind": "Engine",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"serving": "chat", "group": 0, "role": "a", "roleReplica": 0},
    }


@dataclass
class Api:
    """A client on the app, with the store, clock and logs behind it."""

    http: httpx.AsyncClient
    store: MemoryStore
    clock: VirtualClock
    logs: FakeLogSource
    servings: str = SERVINGS

    def model_serving(self, name: str = "chat", replicas: int = 1, **metadata: Any) -> Json:
        return model_serving(name, replicas, **metadata)

    def engine(self, name: str = "chat-0-a-0-0", namespace: str = "default") -> Json:
        return engine(name, namespace)

    async def create(self, name: str = "chat", **more: Any) -> Json:
        answer = await self.http.post(SERVINGS, json=model_serving(name, **more))
        assert answer.status_code == 201, answer.text
        created: Json = answer.json()
        return created

    async def patch(self, path: str, changes: Json) -> httpx.Response:
        return await self.http.patch(path, json=changes, headers={"content-type": "application/merge-patch+json"})


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    clock = VirtualClock()
    store, logs = MemoryStore(clock, SeededIds(1)), FakeLogSource()
    app = build_app(store, logs=logs, summary=lambda: {"nodes": []}, clock=clock)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://hekla") as http:
        yield Api(http, store, clock, logs)
