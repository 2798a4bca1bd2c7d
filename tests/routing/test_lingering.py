"""Requests answered before they were read, and connections with more than one request on them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hekla.routing.config import LimitSettings, RoutingSettings
from hekla.routing.http_protocol import BoundedHeads
from hekla.routing.lingering import DROPPED_BYTES_MAX, drop_rest
from hekla.routing.server import serve

PART = b"x" * 2**16
SMALL = RoutingSettings(limits=LimitSettings(body_bytes_max=2**20))
HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n%b\r\n\r\n"


@pytest.mark.parametrize("told", [True, False])
async def test_a_client_that_sends_a_too_large_body_to_its_end_reads_its_413(start_site: Any, told: bool) -> None:
    """R7: the answer is not lost in a reset of the connection."""
    site = await start_site(settings=SMALL)
    for _ in range(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
        count = 256
        writer.write(HEAD % (b"content-length: %d" % (count * len(PART)) if told else b"transfer-encoding: chunked"))
        for _ in range(count):
            writer.write(PART if told else b"%x\r\n%b\r\n" % (len(PART), PART))
            await writer.drain()
        writer.write(b"" if told else b"0\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 20)
        assert answer.startswith(b"HTTP/1.1 413")
        assert answer.endswith(b"}")
        writer.close()


async def test_a_refused_request_that_still_sends_takes_no_place_and_no_memory(start_site: Any, kit: Any) -> None:
    site = await start_site(settings=SMALL)
    reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
    writer.write(HEAD % b"transfer-encoding: chunked")
    for _ in range(20):
        writer.write(b"%x\r\n%b\r\n" % (len(PART), PART))
    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 413")
    await kit.until(lambda: site.sample("requests_total", status_code="413") == 1, "counted while it still sends")
    assert site.ingress.gateway.in_flight == 0
    assert site.ingress.gateway.bodies.held == 0
    writer.transport.abort()


async def test_what_is_dropped_has_a_bound() -> None:
    async def endless() -> dict[str, Any]:
        return {"type": "http.request", "body": PART, "more_body": True}

    assert DROPPED_BYTES_MAX <= await drop_rest(endless) < DROPPED_BYTES_MAX + len(PART)


async def test_silence_ends_the_lingering() -> None:
    async def silent() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    assert await asyncio.wait_for(drop_rest(silent, silence_s=0.01), 10) == 0


async def test_dripping_does_not_prolong_the_lingering() -> None:
    async def dripping() -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"", "more_body": True}

    assert await asyncio.wait_for(drop_rest(dripping, linger_s=0.05), 10) == 0


class Brief(BoundedHeads):
    rest_s = 0.1
    pipelined_max = 4


async def test_a_client_answered_early_that_sends_for_ever_is_let_go() -> None:
    async def early(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    listener = await serve(early, "127.0.0.1", 0, protocol=Brief)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(HEAD % b"content-length: 1000000000")
    async with asyncio.timeout(20):
        assert (await reader.readline()).startswith(b"HTTP/1.1 404")
        while not writer.transport.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.01)
    await listener.stop()


async def test_a_client_that_leaves_with_requests_waiting_behind_aborts_the_first(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def endless(answer: Any) -> None:
        await answer.begin(content_type="text/event-stream")
        while not answer.left.is_set():
            await answer.write(kit.event({"choices": [{"delta": {"content": "x"}}]}))
            try:
                await asyncio.wait_for(answer.wait_left(), 0.01)
            except TimeoutError:
                continue

    backend = await start_backend(endless)
    site = await start_site(*kit.objects(backend))
    body = b'{"model":"m","messages":[],"stream":true}'
    request = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
    writer.write(request)
    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 200")
    writer.write(request)
    await reader.readuntil(b"}]}\n\n")
    writer.transport.abort()
    await kit.until(lambda: site.ingress.gateway.in_flight == 0, "the ingress has noticed")
    await kit.until(lambda: backend.requests[0].left.is_set(), "so has the engine")
    assert len(backend.requests) == 1, "nobody waits for the second"


async def test_more_requests_behind_one_than_a_connection_may_have_end_it() -> None:
    begun: list[Any] = []

    async def never(scope: Any, receive: Any, send: Any) -> None:
        begun.append(scope)
        while (await receive())["type"] != "http.disconnect":
            pass

    listener = await serve(never, "127.0.0.1", 0, protocol=Brief)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 1000)
    async with asyncio.timeout(20):
        try:
            assert await reader.read() == b""
        except ConnectionResetError:
            pass  # as well
    assert len(begun) <= 1
    writer.transport.abort()
    await listener.stop()
