"""Limits, hostile clients, and books that balance after chaos."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import aiohttp
from hypothesis import given, settings
from hypothesis import strategies as st

from hekla.routing.config import LimitSettings, RoutingSettings
from hekla.routing.usage import EventRelay, Usage

WORD = b'data: {"choices":[{"delta":{"content":"\\"usage\\""}}]}\n\n'
NULL = b'data: {"choices":[{"delta":{}}],"usage":null}\r\n\r\n'
COMMENT = b": ping\n\n"
USAGE = b'data: {"choices": [ ],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
DONE = b"data: [DONE]\n\n"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([WORD, NULL, COMMENT]), max_size=6),
    st.lists(st.integers(0, 500), max_size=12),
    st.booleans(),
)
def test_however_a_stream_is_cut_the_client_gets_the_same_bytes(events: Any, cuts: list[int], hide: bool) -> None:
    whole = b"".join([*events, USAGE, DONE])
    points = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    relay = EventRelay(hide_usage=hide, held_bytes_max=10_000)
    sent = b"".join(relay.feed(whole[a:b]) for a, b in itertools.pairwise(points)) + relay.rest()
    assert sent == (b"".join([*events, DONE]) if hide else whole)
    assert relay.usage() == Usage(3, 4, 0)


async def test_a_client_that_stops_sending_its_body_is_told_so(start_site: Any) -> None:
    site = await start_site(settings=RoutingSettings(limits=LimitSettings(body_read_timeout_s=0.05)))
    reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"request_timeout" in answer
    writer.close()


async def test_a_client_that_leaves_while_sending_is_counted_and_forgotten(start_site: Any, kit: Any) -> None:
    site = await start_site()
    _, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    await writer.drain()
    await kit.until(lambda: site.ingress.gateway.in_flight == 1, "in flight")
    writer.close()
    await kit.until(lambda: site.sample("requests_total", error_type="client_closed") == 1, "counted")
    assert site.ingress.gateway.in_flight == 0


async def test_an_ingress_that_is_full_says_429(start_site: Any, start_backend: Any, kit: Any) -> None:
    release = asyncio.Event()

    async def held(answer: Any) -> None:
        await release.wait()
        await answer.reply(200, {})

    settings = RoutingSettings(limits=LimitSettings(requests_in_flight_max=2))
    site = await start_site(*kit.objects(await start_backend(held)), settings=settings)
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(site.post()) for _ in range(2)]
        await kit.until(lambda: site.ingress.gateway.in_flight == 2, "full")
        status, body = await site.post()
        assert (status, body["error"]["code"]) == (429, "ingress_busy")
        release.set()
    assert [task.result()[0] for task in waiting] == [200, 200]
    assert (await site.post())[0] == 200


async def test_nothing_stays_counted_after_clients_and_engines_misbehave(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    chance = random.Random(11)

    async def moody(answer: Any) -> None:
        mood = chance.random()
        if mood < 0.15:
            await answer.reply(500, {})
        elif mood < 0.25:
            await answer.reply(400, {})
        elif mood < 0.4:
            return  # breaks the connection
        elif mood < 0.55:
            await answer.begin(content_type="text/event-stream")
            await answer.write(WORD + b"data: {")
        else:
            await kit.chat(answer)

    backends = [await start_backend(moody) for _ in range(3)]
    site = await start_site(*kit.objects(*backends))

    async def one(i: int) -> None:
        try:
            async with asyncio.timeout(0.01 if i % 5 == 0 else 20):
                await site.stream(stream=bool(i % 2))
        except (TimeoutError, aiohttp.ClientError):
            pass

    async with asyncio.TaskGroup() as group:
        for i in range(200):
            group.create_task(one(i))
    await kit.until(lambda: site.ingress.gateway.in_flight == 0, "nothing in flight")
    assert site.ingress.loads.own() == {}
    assert site.sample("active_requests") == 0
    assert site.sample("active_upstream_requests") == 0
    assert site.sample("active_downstream_requests") == 0
    assert site.sample("requests_total", error_type="internal") == 0


async def test_a_client_that_drips_its_body_meets_the_deadline(start_site: Any) -> None:
    limits = LimitSettings(body_read_timeout_s=30, body_deadline_s=0.2)
    site = await start_site(settings=RoutingSettings(limits=limits))
    reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{")
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        answer = group.create_task(reader.read())
        while not answer.done():
            writer.write(b" ")
            await asyncio.wait({answer}, timeout=0.02)
    assert answer.result().startswith(b"HTTP/1.1 408")
    assert b"not whole within 0.2 s" in answer.result()
    writer.close()


async def test_bodies_of_all_requests_together_have_a_limit(start_site: Any, start_backend: Any, kit: Any) -> None:
    release = asyncio.Event()

    async def held(answer: Any) -> None:
        await release.wait()
        await answer.reply(200, {})

    settings = RoutingSettings(limits=LimitSettings(bodies_bytes_max=5000))
    site = await start_site(*kit.objects(await start_backend(held)), settings=settings)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(site.post(pad="x" * 3000))
        await kit.until(lambda: site.sample("active_upstream_requests") == 1, "held")
        async with site.client.post("/v1/completions", data=b"x" * 3000) as response:
            assert (response.status, response.headers["retry-after"]) == (429, "1")
            assert "limits.bodies_bytes_max" in await response.text()
        release.set()
    assert first.result()[0] == 200
    assert (await site.post(pad="x" * 3000))[0] == 200
    assert site.ingress.gateway.bodies.held == 0
