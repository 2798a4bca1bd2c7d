"""Watches: what arrives, in which order, and how they end."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from hekla.platform.base.clock import VirtualClock, settle
from hekla.platform.base.tasks import TaskOwner
from hekla.platform.sdk import Client
from hekla.platform.server.asked import Selection
from hekla.platform.server.local_server import LocalServer
from hekla.platform.server.watch_stream import BOOKMARK_PERIOD_S, Watch


class Reader:
    """Reads a watch in the background; `seen` is (type, name) so far."""

    def __init__(self, api: Any, tasks: TaskOwner, since: str | None = None, **selection: Any) -> None:
        chosen = Selection(selection.pop("namespace", None), selection.pop("labels", {}), selection.pop("name", None))
        self.seen: list[tuple[str, str]] = []
        self.lines: list[Any] = []
        self.watch = Watch(api.store, ("ModelServing",), chosen, since)
        self.task = tasks.spawn(self._read(api.clock), "reader")

    async def _read(self, clock: VirtualClock) -> None:
        async for line in self.watch.lines(clock, 60):
            event = json.loads(line)
            self.lines.append(event)
            if event["type"] != "BOOKMARK":
                self.seen.append((event["type"], event["object"].get("metadata", {}).get("name", "")))


async def test_a_watch_begins_with_what_there_is_and_goes_on_with_changes(api: Any) -> None:
    await api.create("old")
    async with TaskOwner("test") as tasks:
        reader = Reader(api, tasks)
        await settle()
        await api.create("new")
        await api.patch(f"{api.servings}/old", {"spec": {"replicas": 2}})
        await api.http.delete(f"{api.servings}/old")
        await settle()
        assert reader.seen == [("ADDED", "old"), ("ADDED", "new"), ("MODIFIED", "old"), ("DELETED", "old")]
        assert reader.lines[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_watch_from_a_version_brings_only_what_came_after(api: Any) -> None:
    first = await api.create("first")
    await api.create("second")
    async with TaskOwner("test") as tasks:
        reader = Reader(api, tasks, since=first["metadata"]["resourceVersion"])
        await settle()
        assert reader.seen == [("ADDED", "second")]


async def test_an_object_whose_labels_leave_the_selection_is_deleted_for_that_watch(api: Any) -> None:
    await api.create("mine", labels={"team": "a"})
    await api.create("other", labels={"team": "b"})
    async with TaskOwner("test") as tasks:
        reader = Reader(api, tasks, labels={"team": "a"})
        await settle()
        for team in ("b", "c", "a"):
            await api.patch(f"{api.servings}/mine", {"metadata": {"labels": {"team": team}}})
        await settle()
        assert reader.seen == [("ADDED", "mine"), ("DELETED", "mine"), ("MODIFIED", "mine")]


async def test_a_quiet_watch_gets_bookmarks_and_ends_when_its_time_is_up(api: Any) -> None:
    async with TaskOwner("test") as tasks:
        reader = Reader(api, tasks)
        api.store.create(api.engine())
        await api.clock.advance(BOOKMARK_PERIOD_S)
        assert reader.lines[-1]["type"] == "BOOKMARK"
        assert reader.lines[-1]["object"]["metadata"]["resourceVersion"] == api.store.list("Engine").resource_version
        assert not reader.task.done()
        await api.clock.advance(60)
        assert reader.task.done()


async def test_a_version_no_longer_remembered_is_answered_with_gone(api: Any) -> None:
    answer = await api.http.get(api.servings, params={"watch": "true", "resourceVersion": "12345"})
    assert (answer.status_code, answer.json()["reason"]) == (410, "Expired")


async def test_a_reader_too_far_behind_gets_an_error_event_with_a_status(api: Any) -> None:
    watch = Watch(api.store, ("ModelServing",), Selection(None, {}), None)
    obj = api.store.create(api.model_serving())
    for replicas in range(9000):
        obj["spec"]["replicas"] = replicas
        obj = api.store.update(obj)
    last = [line async for line in watch.lines(api.clock, 60)][-1]
    assert json.loads(last)["type"] == "ERROR"
    assert json.loads(last)["object"]["reason"] == "Expired"


@pytest.mark.parametrize("params", [{"timeoutSeconds": "0"}, {"timeoutSeconds": "soon"}, {"watch": "maybe"}])
async def test_bad_watch_parameters_are_named(api: Any, params: dict[str, str]) -> None:
    answer = await api.http.get(api.servings, params={"watch": "true", **params})
    assert answer.status_code == 400
    assert next(iter(params)) in answer.json()["message"]


async def test_a_watch_of_several_kinds_says_which_kinds_there_are_when_none_is_given(api: Any) -> None:
    answer = await api.http.get("/hekla/v1/watch")
    assert answer.status_code == 400
    assert "ModelServing" in answer.json()["message"]


def test_a_watch_over_a_socket_streams_as_things_happen_and_ends_with_its_client() -> None:
    with LocalServer() as server, Client(server.url) as client:
        path = "/apis/workload.serving.volcano.sh/v1alpha1/namespaces/default/modelservings"
        client.apply(manifest("one"))
        with httpx.stream("GET", server.url + path, params={"watch": "true"}, timeout=20) as response:
            lines = (json.loads(line) for line in response.iter_lines())
            assert next(lines)["object"]["metadata"]["name"] == "one"
            assert next(lines)["type"] == "BOOKMARK"
            client.apply(manifest("two"))
            assert next(lines)["object"]["metadata"]["name"] == "two"
            assert watchers(server) == 1
        deadline = Client(server.url)
        for _ in range(200):
            if watchers(server) == 0:
                return
            deadline.version()
        raise AssertionError("the watch outlived its client")


def manifest(name: str) -> str:
    container = "{name: engine, image: sim}"
    return f"""
apiVersion: workload.serving.volcano.sh/v1alpha1
kind: ModelServing
metadata: {{name: {name}}}
spec:
  replicas: 1
  template:
    roles:
      - {{name: a, replicas: 1, workerReplicas: 0, entryTemplate: {{spec: {{containers: [{container}]}}}}}}
"""


def watchers(server: LocalServer) -> int:
    """Live watches, as the store's hub tells in its repr."""
    text = server.edit(repr)
    return int(text.rsplit("watchers=", 1)[1].split(")")[0])
