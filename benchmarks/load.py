"""A small HTTP/1.1 load generator: raw sockets on uvloop, so that it costs less than what it measures.

Closed loop: `concurrency` connections, each sends its next request when the last was answered.
Open loop: requests leave at a fixed rate whatever the answers do; latency counts from the planned departure, so a
server that stalls is not excused (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

CHUNK_MARK = b"data: "


@dataclass
class Result:
    """What one run saw; latencies in seconds."""

    seconds: float = 0.0
    requests: int = 0
    errors: int = 0
    chunks: int = 0
    latencies_s: list[float] = field(default_factory=list)

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def chunks_per_s(self) -> float:
        return self.chunks / self.seconds if self.seconds else 0.0

    def percentile_ms(self, share: float) -> float:
        """Latency in milliseconds below which `share` of the requests lie."""
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request in flight."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._buffer = bytearray()
        self._body_left: int | None = None
        self._chunked = False
        self._answered: asyncio.Future[tuple[bool, int]] | None = None
        self._ok = False
        self._marks = 0
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport is a Transport in all but its base class.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._finish(False)

    def send(self) -> asyncio.Future[tuple[bool, int]]:
        """Send the request; the future gives (answered with 200, `data:` marks seen)."""
        self._answered = asyncio.get_running_loop().create_future()
        self._body_left, self._ok, self._marks, self._tail = None, False, 0, b""
        self._transport.write(self._request)
        return self._answered

    def _finish(self, ok: bool) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result((ok, self._marks))

    def data_received(self, data: bytes) -> None:
        if self._body_left is None:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            data = bytes(self._buffer[end + 4 :])
            self._buffer.clear()
            self._ok = b" 200 " in head[:20]
            self._chunked = b"transfer-encoding: chunked" in head
            at = head.find(b"content-length:")
            self._body_left = 0 if at < 0 else int(head[at + 15 : (head + b"\r\n").find(b"\r\n", at)])
        if self._chunked:
            self._marks += data.count(CHUNK_MARK)
            self._tail = (self._tail + data)[-7:]
            if self._tail.endswith(b"0\r\n\r\n"):
                self._finish(self._ok)
            return
        self._body_left -= len(data)
        if self._body_left <= 0:
            self._finish(self._ok)


def request_bytes(url: str, body: bytes) -> bytes:
    parts = urlsplit(url)
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _connect(url: str, body: bytes) -> Connection:
    parts = urlsplit(url)
    request = request_bytes(url, body)
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(request), parts.hostname, parts.port or 80
    )
    return connection


async def closed_loop(url: str, body: bytes, concurrency: int, seconds: float) -> Result:
    """As many requests as `concurrency` connections carry in `seconds`."""
    result = Result()
    connections = [await _connect(url, body) for _ in range(concurrency)]
    began = time.perf_counter()
    deadline = began + seconds

    async def one(connection: Connection) -> None:
        while (sent := time.perf_counter()) < deadline:
            ok, marks = await connection.send()
            _note(result, ok, marks, time.perf_counter() - sent)
            if not ok and connection._transport.is_closing():
                connection = await _connect(url, body)

    await asyncio.gather(*(one(connection) for connection in connections))
    result.seconds = time.perf_counter() - began
    return result


async def open_loop(url: str, body: bytes, rate: float, seconds: float, connections: int = 64) -> Result:
    """`rate` requests a second for `seconds`, over a pool of connections."""
    result = Result()
    idle = deque([await _connect(url, body) for _ in range(connections)])
    came_back = asyncio.Event()
    running: set[asyncio.Task[None]] = set()
    began = time.perf_counter()

    async def one(planned: float) -> None:
        while not idle:
            came_back.clear()
            await came_back.wait()
        connection = idle.popleft()
        ok, marks = await connection.send()
        _note(result, ok, marks, time.perf_counter() - planned)
        if not ok and connection._transport.is_closing():
            connection = await _connect(url, body)
        idle.append(connection)
        came_back.set()

    for number in range(int(rate * seconds)):
        planned = began + number / rate
        if (wait := planned - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.get_running_loop().create_task(one(planned))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    result.seconds = time.perf_counter() - began
    return result


def _note(result: Result, ok: bool, marks: int, latency_s: float) -> None:
    if ok:
        result.requests += 1
        result.chunks += marks
        result.latencies_s.append(latency_s)
    else:
        result.errors += 1
