"""Following the resource API: in virtual time against the fake source, and over HTTP against a real socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.errors import Gone, Unavailable
from hekla.platform.base.ids import SeededIds
from hekla.routing.config import LimitSettings, RoutingSettings, WatchSettings
from hekla.routing.source import Change, FakeObjectSource, HttpObjectSource
from hekla.routing.watch import TableKeeper


async def keeper_of(source: FakeObjectSource, clock: VirtualClock) -> TableKeeper:
    keeper = TableKeeper(source, WatchSettings(), clock=clock, ids=SeededIds(1))
    await keeper.start()
    await clock.advance(0.1)
    return keeper


async def test_the_table_is_synced_only_after_every_kind_was_listed(kit: Any) -> None:
    source, clock = FakeObjectSource(kit.model_route()), VirtualClock()
    source.away()
    keeper = await keeper_of(source, clock)
    assert not keeper.synced
    source.away(False)
    await clock.advance(6)
    assert keeper.synced
    assert keeper.table.models == ("m",)
    await keeper.stop()


async def test_changes_arrive_without_listing_again(kit: Any) -> None:
    source, clock = FakeObjectSource(), VirtualClock()
    keeper = await keeper_of(source, clock)
    lists = source.lists
    source.put(kit.model_route(), kit.model_server(), kit.engine("e", "http://h:1"))
    await clock.advance(0.1)
    assert len(keeper.table.servers[("default", "s")].backends) == 1
    source.remove(kit.engine("e", ""))
    await clock.advance(0.1)
    assert not keeper.table.servers[("default", "s")].backends
    assert source.lists == lists
    await keeper.stop()


async def test_what_happened_while_the_platform_was_away_is_caught_up(kit: Any) -> None:
    source, clock = FakeObjectSource(kit.model_route()), VirtualClock()
    keeper = await keeper_of(source, clock)
    source.away()
    await clock.advance(60)
    assert keeper.table.models == ("m",), "the last table stays"
    source.put(kit.model_route("r2", model="n"))
    source.away(False)
    await clock.advance(5)
    assert list(keeper.table.models) == ["m", "n"]
    await keeper.stop()


async def test_a_version_too_old_leads_to_a_new_list(kit: Any) -> None:
    source, clock = FakeObjectSource(kit.model_route()), VirtualClock()
    keeper = await keeper_of(source, clock)
    lists = source.lists
    source.away()
    await clock.advance(1)
    source.remove(kit.model_route())
    source.put(kit.model_route("r2", model="n"))
    source.forget_history()
    source.away(False)
    await clock.advance(6)
    assert keeper.table.models == ("n",)
    assert source.lists > lists
    await keeper.stop()


async def test_many_changes_at_once_are_one_rebuild(kit: Any) -> None:
    source, clock = FakeObjectSource(), VirtualClock()
    built: list[int] = []
    keeper = TableKeeper(
        source, WatchSettings(), clock=clock, ids=SeededIds(1), on_table=lambda t: built.append(len(t.models))
    )
    await keeper.start()
    await clock.advance(0.1)
    source.put(*[kit.model_route(f"r{i}", model=f"m{i}") for i in range(100)])
    await clock.advance(0.1)
    assert built == [0, 100]
    await keeper.stop()


def watch_line(kind: str, obj: Any) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


@pytest.fixture
async def http_source(start_backend: Any) -> Any:
    backend = await start_backend()
    async with aiohttp.ClientSession() as session:
        yield backend, HttpObjectSource(lambda: session, lambda: backend.url, silence_s=5, token=lambda: "t")


async def test_list_and_watch_over_http(http_source: Any, kit: Any) -> None:
    backend, source = http_source

    async def api(answer: Any) -> None:
        if b"watch=true" not in answer.scope["query_string"]:
            await answer.reply(200, {"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "e"}}]})
            return
        lines = watch_line("ADDED", kit.engine("e", "http://h")) + watch_line("BOOKMARK", {"metadata": {}})
        await answer.begin()
        for i in range(0, len(lines), 37):
            await answer.write(lines[i : i + 37])
        await answer.end(watch_line("ERROR", {"code": 410, "message": "old"}))

    backend.behave = api
    items, version = await source.list("Engine")
    assert (items, version) == ([{"apiVersion": "hekla.io/v1alpha1", "kind": "Engine", "metadata": {"name": "e"}}], "7")
    seen = []
    with pytest.raises(Gone):
        async for change in source.watch("Engine", version):
            seen.append(change.kind)
    assert seen == ["ADDED", "BOOKMARK"]
    assert backend.requests[1].path == "/apis/hekla.io/v1alpha1/engines"
    assert b"resourceVersion=7" in backend.requests[1].scope["query_string"]
    assert backend.requests[1].headers["authorization"] == "Bearer t"


@pytest.mark.parametrize("status", [410, 500])
async def test_http_failures_are_named(http_source: Any, status: int) -> None:
    backend, source = http_source

    async def fails(answer: Any) -> None:
        await answer.reply(status, {})

    backend.behave = fails
    with pytest.raises(Unavailable):
        await source.list("Engine")
    with pytest.raises(Gone if status == 410 else Unavailable):
        await anext(source.watch("Engine", "1"))


async def test_a_broken_watch_is_unavailable(http_source: Any) -> None:
    backend, source = http_source

    async def breaks(answer: Any) -> None:
        await answer.begin()
        await answer.write(b'{"type":')

    backend.behave = breaks
    with pytest.raises(Unavailable):
        await anext(source.watch("Engine", "1"))


async def test_the_platforms_paths_are_forwarded_both_ways_and_streams_stay_streams(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def platform(answer: Any) -> None:
        if b"watch" in answer.scope["query_string"]:
            await answer.begin(content_type="application/json")
            await answer.write(b"{}\n")
            await answer.wait_left()
        else:
            await answer.reply(201, {"got": answer.body.decode()})

    backend = await start_backend(platform)
    site = await start_site(platform_url=lambda: backend.url)
    async with site.client.post("/apis/a/b/c?x=1", data=b"body", headers={"Authorization": "Bearer t"}) as response:
        assert (response.status, await response.json()) == (201, {"got": "body"})
    assert "authorization" not in backend.requests[0].headers, "the ingress has judged it; nobody else need see it"
    response = await site.client.get("/apis/a/b/c?watch=true")
    assert await response.content.readline() == b"{}\n"
    response.close()
    async with asyncio.timeout(10):
        await backend.requests[1].left.wait()


async def test_without_the_platform_its_paths_answer_a_status_with_retry_after(start_site: Any) -> None:
    for url in (None, "http://127.0.0.1:9"):
        site = await start_site(platform_url=lambda url=url: url)
        for path in ("/apis", "/apis/x/y", "/hekla/logs", "/openapi/v3"):
            async with site.client.get(path) as response:
                assert response.status == 503
                assert response.headers["retry-after"] == "1"
                body = await response.json()
                assert (body["kind"], body["code"], body["reason"]) == ("Status", 503, "ServiceUnavailable")


class BabblingSource(FakeObjectSource):
    """A source whose answers may be anything, as when another program took the platform's port."""

    def __init__(self, *objects: Any) -> None:
        super().__init__(*objects)
        self.babbles = False

    async def list(self, kind: str) -> Any:
        if self.babbles:
            return [{"hello": "world"}], "1"
        return await super().list(kind)

    async def watch(self, kind: str, since: str) -> Any:
        async for change in super().watch(kind, since):
            yield Change("ADDED", {}) if self.babbles else change


async def test_answers_that_make_no_sense_leave_the_last_table_and_are_got_over(kit: Any) -> None:
    source, clock = BabblingSource(kit.model_route()), VirtualClock()
    keeper = await keeper_of(source, clock)
    source.babbles = True
    source.put(kit.model_route("r2", model="n"))
    await clock.advance(20)
    assert list(keeper.table.models) == ["m"]
    source.babbles = False
    await clock.advance(6)
    assert list(keeper.table.models) == ["m", "n"]
    await keeper.stop()


async def test_a_put_whose_kept_connection_was_closed_is_sent_again_whole(start_site: Any) -> None:
    # aiohttp repeats a PUT on a fresh connection; a body that streamed through would be empty the second time.
    bodies: list[bytes] = []

    async def platform(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for turn in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            bodies.append(await reader.readexactly(size))
            if turn == 1 and len(bodies) == 2:
                break  # the kept connection goes away under the second request
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(platform, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    site = await start_site(platform_url=lambda: url)
    for body in (b"first", b"second"):
        async with site.client.put("/apis/x", data=body) as response:
            assert response.status == 200
    assert bodies == [b"first", b"second", b"second"]
    server.close()


async def test_a_body_too_large_for_the_platform_is_a_status(start_site: Any, start_backend: Any) -> None:
    backend = await start_backend()
    settings = RoutingSettings(limits=LimitSettings(body_bytes_max=100))
    site = await start_site(platform_url=lambda: backend.url, settings=settings)
    async with site.client.post("/apis/x", data=b"x" * 101) as response:
        body = await response.json()
        assert (response.status, body["kind"], body["reason"]) == (413, "Status", "RequestEntityTooLarge")
    assert backend.requests == []
