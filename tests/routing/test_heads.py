"""The head of a request: how large it may be, how long it may take, and that connections are kept all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hekla.routing.http_protocol import BoundedHeads
from hekla.routing.server import Listener, serve

REQUEST = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi"


class Small(BoundedHeads):
    head_bytes_max = 2000


class Impatient(BoundedHeads):
    head_read_s = 0.2


class Strict(BoundedHeads):
    stall_s = 0.2
    connections_max = 2


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    found = await serve(echo, "127.0.0.1", 0, protocol=Small)
    yield found
    await found.stop()


@pytest.fixture
async def impatient() -> AsyncIterator[Listener]:
    found = await serve(echo, "127.0.0.1", 0, protocol=Impatient)
    yield found
    await found.stop()


async def exchange(listener: Listener, *parts: bytes) -> bytes:
    """All that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def test_a_head_that_never_ends_is_refused_with_the_limit(listener: Listener) -> None:
    for part in (b"x-a: " + b"y" * 3000, b"x: y\r\n" * 500):
        answer = await exchange(listener, b"GET / HTTP/1.1\r\nhost: x\r\n", part)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert b"2000 bytes" in answer


async def test_a_head_that_comes_too_slowly_is_told_so(impatient: Listener) -> None:
    assert (await exchange(impatient, b"GET / HT")).startswith(b"HTTP/1.1 408 ")
    answer = await exchange(impatient, REQUEST, b"GET / HTTP/1.1\r\nhos")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answer, "the second request of a connection has the same limit"


async def test_a_connection_that_asks_nothing_is_closed(impatient: Listener) -> None:
    assert await exchange(impatient) == b""


async def test_a_long_body_and_many_requests_on_one_connection_are_no_long_head(listener: Listener) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    body = b"z" * 100_000
    for _ in range(30):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(len(body)) == body
    writer.close()


async def test_pipelined_requests_are_answered_in_order(listener: Listener) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(REQUEST * 20)
    for _ in range(20):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(2) == b"hi"
    writer.close()


async def test_a_client_that_never_reads_is_let_go() -> None:
    left = asyncio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not left.is_set():
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            if await _has_left(receive):
                left.set()

    async def _has_left(receive: Any) -> bool:
        try:
            async with asyncio.timeout(0.001):
                return bool((await receive())["type"] == "http.disconnect")
        except TimeoutError:
            return False

    listener = await serve(endless, "127.0.0.1", 0, protocol=Strict)
    _, writer = await asyncio.open_connection("127.0.0.1", listener.port, limit=1024)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    async with asyncio.timeout(30):
        await left.wait()
    writer.transport.abort()
    await listener.stop()


async def test_more_connections_than_the_listener_takes_are_closed_and_those_it_has_go_on() -> None:
    listener = await serve(echo, "127.0.0.1", 0, protocol=Strict)
    kept = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(2)]
    reader, writer = kept[0]
    writer.write(REQUEST)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    one_too_many, third = await asyncio.open_connection("127.0.0.1", listener.port)
    async with asyncio.timeout(30):
        assert await one_too_many.read() == b""
    writer.write(REQUEST)
    assert await reader.readuntil(b"HTTP/1.1 200")
    for _, other in (*kept, (one_too_many, third)):
        other.close()
    await listener.stop()
