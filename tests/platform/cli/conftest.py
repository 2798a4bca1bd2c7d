"""The CLI against a resource API on a real port."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

from hekla.platform.api.meta import Ref, owner_reference
from hekla.platform.cli.app import app
from hekla.platform.sdk import Client
from hekla.platform.server.local_server import LocalServer

MANIFEST = """
apiVersion: workload.serving.volcano.sh/v1alpha1
kind: ModelServing
metadata: {name: chat, labels: {team: a}}
spec:
  replicas: 1
  template:
    roles:
      - name: a
        replicas: 1
        workerReplicas: 0
        entryTemplate: {spec: {containers: [{name: engine, image: sim}]}}
"""


@dataclass
class Shell:
    """Runs `hekla …`; the result has `exit_code`, `stdout`, `stderr`."""

    server: LocalServer
    client: Client

    def __call__(self, *arguments: str, typed: str = "", url: str = "") -> Any:
        return CliRunner().invoke(app, ["--server", url or self.server.url, *arguments], input=typed)

    def make_engine(self, name: str = "chat-0-a-0-0", phase: str = "Ready", progress: float = 0.0) -> None:
        """An engine of ModelServing chat, as its controller would make it."""

        def make(store: Any) -> None:
            serving = store.get(Ref("ModelServing", "default", "chat"))
            meta = {"name": name, "namespace": "default", "ownerReferences": [owner_reference(serving)]}
            spec = {"serving": "chat", "group": 0, "role": "a", "roleReplica": 0}
            made = store.create({"apiVersion": "hekla.io/v1alpha1", "kind": "Engine", "metadata": meta, "spec": spec})
            store.update_status({**made, "status": {"phase": phase, "progress": progress}})

        self.server.edit(make)

    def set_condition(self, status: str, message: str = "") -> None:
        def change(store: Any) -> None:
            obj = store.get(Ref("ModelServing", "default", "chat"))
            condition = {"type": "Available", "status": status, "reason": "Because", "message": message}
            store.update_status({**obj, "status": {"replicas": 1, "conditions": [condition]}})

        self.server.edit(change)

    def record_event(self, name: str = "chat", reason: str = "EngineFailed") -> None:
        def change(store: Any) -> None:
            spec = {"regardingKind": "ModelServing", "regardingName": name, "type": "Warning", "reason": reason,
                    "message": "it fell over", "lastSeen": "2026-01-01T00:00:00Z"}  # fmt: skip
            meta = {"name": f"{name}.{reason.lower()}", "namespace": "default"}
            store.create({"apiVersion": "hekla.io/v1alpha1", "kind": "Event", "metadata": meta, "spec": spec})

        self.server.edit(change)


@pytest.fixture
def hekla() -> Iterator[Shell]:
    with LocalServer() as server, Client(server.url) as client:
        yield Shell(server, client)


@pytest.fixture
def applied(hekla: Shell) -> Shell:
    """The shell, with ModelServing chat applied."""
    assert hekla("apply", "-f", "-", typed=MANIFEST).exit_code == 0
    return hekla


@pytest.fixture
def manifest() -> str:
    return MANIFEST


@pytest.fixture
def rows() -> Callable[[str], list[list[str]]]:
    """The cells of a printed table, heading first."""
    return lambda text: [re.split(r"\s{2,}", line.strip()) for line in text.strip().splitlines()]
