"""The clients against a real server."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from hekla.platform.api.meta import Json, Ref, owner_reference
from hekla.platform.base.errors import ApiError, BadRequest, Conflict, Invalid, NotFound, Unavailable
from hekla.platform.sdk import AsyncClient, Client, NotReady
from hekla.platform.sdk.calls import read_json
from hekla.platform.sdk.waiting import Progress
from hekla.platform.server.local_server import LocalServer
from hekla.platform.store.interface import Store

Make = Callable[..., Json]
CHAT = Ref("ModelServing", "default", "chat")


def available(status: str, message: str = "") -> Json:
    return {"conditions": [{"type": "Available", "status": status, "reason": "R", "message": message}]}


def set_status(status: Json) -> Callable[[Store], Json]:
    return lambda store: store.update_status({**store.get(CHAT), "status": status})


def add_engine(store: Store, phase: str = "Fetching", progress: float = 0.4) -> None:
    owner = store.get(CHAT)
    name = f"{owner['metadata']['name']}-0-a-0-0"
    meta = {"name": name, "namespace": "default", "ownerReferences": [owner_reference(owner)]}
    spec = {"serving": "chat", "group": 0, "role": "a", "roleReplica": 0}
    made = store.create({"apiVersion": "hekla.io/v1alpha1", "kind": "Engine", "metadata": meta, "spec": spec})
    store.update_status({**made, "status": {"phase": phase, "progress": progress}})


def test_objects_are_applied_read_listed_patched_scaled_and_deleted(client: Client, serving: Make) -> None:
    assert [str(done) for done in client.apply(serving(labels={"a": "1"}))] == ["ModelServing default/chat created"]
    assert client.apply([serving(), serving("two")])[1].action == "created"
    assert client.get("ms", "chat")["kind"] == "ModelServing"
    assert [obj["metadata"]["name"] for obj in client.list("modelservings", labels={"a": "1"})] == ["chat"]
    assert client.patch("ModelServing", "chat", {"metadata": {"labels": {"b": "2"}}})["metadata"]["labels"]["b"] == "2"
    assert client.scale("ModelServing", "chat", 3)["spec"]["replicas"] == 3
    client.delete("ModelServing", "chat")
    with pytest.raises(NotFound):
        client.get("ModelServing", "chat")


def test_a_dry_run_changes_nothing(client: Client, serving: Make) -> None:
    assert client.apply(serving(), dry_run=True)[0].action == "created"
    assert client.list("ModelServing") == []


def test_objects_without_a_namespace_get_the_clients(server: LocalServer, serving: Make) -> None:
    with Client(server.url, namespace="mine") as client:
        client.apply([serving("a"), serving("b", namespace="other")])
        assert [obj["metadata"]["name"] for obj in client.list("ModelServing")] == ["a"]
        assert len(client.list("ModelServing", all_namespaces=True)) == 2
        assert client.get("ModelServing", "b", namespace="other")["metadata"]["namespace"] == "other"


def test_a_refusal_is_raised_as_the_error_it_was(client: Client, serving: Make) -> None:
    client.apply(serving())
    with pytest.raises(Invalid) as invalid:
        client.apply(serving(replicas=-1))
    assert next(cause.path for cause in invalid.value.causes).endswith("spec.replicas")
    with pytest.raises(Conflict):
        client.patch("ModelServing", "chat", {"metadata": {"resourceVersion": "999999"}})
    with pytest.raises(NotFound, match="known kinds"):
        client.get("Surprise", "x")
    with pytest.raises(BadRequest, match="name"):
        client.get("ModelServing", "")
    with pytest.raises(ApiError) as refused:
        client.scale("ModelRoute", "x", 1)
    assert refused.value.code == 404


def test_an_odd_name_stays_one_path_segment(client: Client) -> None:
    with pytest.raises(NotFound):
        client.get("ModelServing", "a/../b?c")


def test_a_server_that_is_not_there_is_unavailable_and_says_what_to_do() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(Unavailable, match="is it up\\? try: hekla up"):
        client.status()


def test_a_wait_for_a_server_that_is_not_there_fails_at_once() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(Unavailable):
        client.wait_ready("ModelServing", "x", timeout_s=600)


def test_a_wait_outlasts_a_platform_that_is_away_for_now(server: LocalServer, client: Client) -> None:
    server.edit(lambda store: store.close())
    with pytest.raises(Unavailable, match="not ready yet"):
        client.list("ModelServing")
    with pytest.raises(NotReady, match="could not be watched"):
        client.wait_ready("ModelServing", "chat", timeout_s=0.3)


@pytest.mark.parametrize(("code", "body"), [(200, b"<html>"), (404, b"<html>"), (500, b"[]"), (200, b"[]")])
def test_a_server_that_is_not_hekla_is_said_to_be_none(code: int, body: bytes) -> None:
    with pytest.raises(ApiError, match="does not answer as hekla does"):
        read_json(code, body, "http://elsewhere")


@pytest.mark.parametrize("code", [502, 503, 504])
def test_a_platform_that_is_away_for_now_is_unavailable(code: int) -> None:
    with pytest.raises(Unavailable, match="coming back"):
        read_json(code, b'{"kind": "Status", "message": "coming back"}', "http://here")


def test_wait_ready_tells_how_far_the_engines_are_and_returns_the_ready_object(
    server: LocalServer, client: Client, serving: Make
) -> None:
    client.apply(serving())
    server.edit(set_status(available("False", "1 of 1 groups is not ready")))
    seen: list[str] = []

    def on_progress(progress: Progress) -> None:
        seen.append(str(progress))
        if len(seen) == 1:
            server.edit(add_engine)
        if str(progress) == "chat-0-a-0-0: Fetching 40%":
            server.edit(set_status(available("True")))

    ready = client.wait_ready("ModelServing", "chat", timeout_s=30, on_progress=on_progress)
    assert ready["status"]["conditions"][0]["status"] == "True"
    assert seen[0] == "1 of 1 groups is not ready"
    assert "chat-0-a-0-0: Fetching 40%" in seen


def test_wait_ready_quotes_the_condition_when_the_time_is_up(
    server: LocalServer, client: Client, serving: Make
) -> None:
    client.apply(serving())
    server.edit(set_status(available("False", "short of GPU on every node")))
    with pytest.raises(NotReady, match="short of GPU on every node") as late:
        client.wait_ready("ModelServing", "chat", timeout_s=0.2)
    assert isinstance(late.value, TimeoutError)


def test_wait_ready_of_what_is_not_there_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound):
        client.wait_ready("ModelServing", "nobody", timeout_s=30)


def test_wait_ready_of_what_is_deleted_meanwhile_is_not_found(client: Client, serving: Make) -> None:
    client.apply(serving())

    def delete(_progress: Progress) -> None:
        if client.list("ms"):
            client.delete("ms", "chat")

    with pytest.raises(NotFound):
        client.wait_ready("ModelServing", "chat", 30, delete)


def test_wait_gone_waits_for_what_the_object_owned(server: LocalServer, client: Client, serving: Make) -> None:
    client.apply(serving(finalizers=["hekla.io/engines"]))
    uid = client.get("ModelServing", "chat")["metadata"]["uid"]
    client.delete("ModelServing", "chat")
    with pytest.raises(NotReady, match="held by hekla"):
        client.wait_gone("ModelServing", "chat", timeout_s=0.2)
    client.patch("ModelServing", "chat", {"metadata": {"finalizers": []}})
    client.wait_gone("ModelServing", "chat", timeout_s=30, uid=uid)


def test_a_watch_survives_a_restart_of_the_platform_and_tells_only_what_changed(serving: Make) -> None:
    with LocalServer() as first:
        port, store = int(first.url.rsplit(":", 1)[1]), first.store
        client = Client(first.url)
        client.apply([serving("stays"), serving("goes")])
        changes = client.watch("ModelServing", timeout_s=60)
        assert {next(changes).object["metadata"]["name"] for _ in range(2)} == {"stays", "goes"}
    store.delete(Ref("ModelServing", "default", "goes"))
    store.create({**serving("comes"), "metadata": {"name": "comes", "namespace": "default"}})
    with LocalServer(store, port):
        seen = [(change.type, change.object["metadata"]["name"]) for change in (next(changes), next(changes))]
    assert seen == [("DELETED", "goes"), ("ADDED", "comes")]


def test_a_watch_of_one_name_ends_with_its_time(client: Client, serving: Make) -> None:
    client.apply([serving("one"), serving("two")])
    assert [change.object["metadata"]["name"] for change in client.watch("ms", "one", timeout_s=0.1)] == ["one"]


def test_events_of_an_object_come_oldest_first(server: LocalServer, client: Client) -> None:
    def record(store: Store) -> None:
        for number, (name, when) in enumerate(
            (("chat", "2026-01-02T00:00:00Z"), ("chat", "2026-01-01T00:00:00Z"), ("x", ""))
        ):
            spec = {"regardingKind": "ModelServing", "regardingName": name, "reason": f"R{number}", "lastSeen": when}
            meta = {"name": f"e{number}", "namespace": "default"}
            store.create({"apiVersion": "hekla.io/v1alpha1", "kind": "Event", "metadata": meta, "spec": spec})

    server.edit(record)
    assert [event["spec"]["reason"] for event in client.events("ms", "chat")] == ["R1", "R0"]
    assert len(client.events()) == 3


def test_logs_are_read_and_followed(server: LocalServer, client: Client, serving: Make) -> None:
    client.apply(serving())
    server.edit(add_engine)
    server.logs.write("default", "chat-0-a-0-0", "one\ntwo\n")
    assert "".join(client.logs("chat-0-a-0-0")) == "one\ntwo\n"
    assert "".join(client.logs("chat-0-a-0-0", tail_lines=1)) == "two\n"
    following = client.logs("chat-0-a-0-0", follow=True)
    assert next(following) == "one\ntwo\n"
    server.logs.write("default", "chat-0-a-0-0", "three\n")
    assert next(following) == "three\n"
    server.logs.remove("default", "chat-0-a-0-0")
    assert "".join(following) == ""


def test_openai_is_the_ordinary_client_pointed_at_the_platform(client: Client) -> None:
    assert str(client.openai().base_url) == f"{client.base_url}/v1/"


async def test_the_async_client_does_the_same(server: LocalServer, serving: Make) -> None:
    async with AsyncClient(server.url) as client:
        assert (await client.apply(serving()))[0].action == "created"
        assert (await client.get("ms", "chat"))["metadata"]["name"] == "chat"
        async with aclosing(client.watch("ms")) as changes:
            assert (await anext(changes)).type == "ADDED"
            assert (await client.scale("ms", "chat", 2))["spec"]["replicas"] == 2
            assert (await anext(changes)).type == "MODIFIED"
        with pytest.raises(NotReady, match="no Available condition yet"):
            await client.wait_ready("ms", "chat", timeout_s=0.1)
        server.edit(set_status(available("True")))
        assert await client.wait_ready("ms", "chat", timeout_s=30)
        assert (await client.patch("ms", "chat", {"spec": {"replicas": 3}}))["spec"]["replicas"] == 3
        server.edit(add_engine)
        server.logs.write("default", "chat-0-a-0-0", "hello\n")
        assert [text async for text in client.logs("chat-0-a-0-0")] == ["hello\n"]
        assert await client.events() == []
        assert (await client.version())["hekla"]
        assert "nodes" in await client.status()
        await client.delete("ms", "chat")
        await client.wait_gone("ms", "chat", timeout_s=30)
        assert await client.list("ms") == []
    with pytest.raises(Unavailable):
        async with AsyncClient("http://127.0.0.1:9") as lost:
            await lost.status()


def test_the_two_clients_have_the_same_methods_with_the_same_parameters() -> None:
    def shape(client: type) -> dict[str, list[tuple[str, Any, Any]]]:
        methods = {name: value for name, value in vars(client).items() if not name.startswith("_") and callable(value)}
        return {
            name: [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]
            for name, method in methods.items()
        }

    assert shape(Client) == shape(AsyncClient)


def test_importing_the_sdk_imports_neither_ray_nor_openai() -> None:
    import subprocess
    import sys

    code = "import sys, hekla.platform.sdk; print([m for m in ('ray', 'openai', 'yaml.cyaml', 'starlette') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ray" not in done.stdout and "openai" not in done.stdout and "starlette" not in done.stdout
