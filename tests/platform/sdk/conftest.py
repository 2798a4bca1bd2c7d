"""A resource API on a real port, and small manifests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hekla.platform.api.meta import Json
from hekla.platform.sdk import Client
from hekla.platform.server.local_server import LocalServer


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer() as running:
        yield running


@pytest.fixture
def client(server: LocalServer) -> Iterator[Client]:
    with Client(server.url) as connected:
        yield connected


@pytest.fixture
def serving() -> Callable[..., Json]:
    def make(name: str = "chat", replicas: int = 1, **metadata: Any) -> Json:
        containers = [{"name": "engine", "image": "sim"}]
        role = {"name": "a", "replicas": 1, "workerReplicas": 0, "entryTemplate": {"spec": {"containers": containers}}}
        return {
            "apiVersion": "workload.serving.volcano.sh/v1alpha1",
            "kind": "ModelServing",
            "metadata": {"name": name, **metadata},
            "spec": {"replicas": replicas, "template": {"roles": [role]}},
        }

    return make
