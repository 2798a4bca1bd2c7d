"""uvicorn's HTTP protocol with limits it lacks: a head's size and time, a client that never reads, how many connect.

The parser holds a head that is not whole in memory, a connection that never sends one is open for ever, and a client
that takes no bytes holds its engine's stream for ever; none of it is seen by an ASGI application.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hekla.routing.refusal import Refusal

HEAD_BYTES_MAX = 64 * 2**10
"""Request line and headers: four times what proxies in front usually allow, and vLLM's server takes no more."""
HEAD_READ_S = 30.0
"""From a connection's start, or a head's first byte, to its last: half the time given to silence within a body."""
STALL_S = 300.0
"""A client that does not take what fills its buffers (a few hundred kB) in this time is gone or means harm: even a person who
reads along takes a token now and then, and what is buffered drains."""
CONNECTIONS_MAX = 20_000
"""Open at once: twice `limits.requests_in_flight_max`, and below the descriptors a process usually gets (65,536) with the
engines' connections beside."""


class BoundedHeads(HttpToolsProtocol):
    head_bytes_max = HEAD_BYTES_MAX
    head_read_s = HEAD_READ_S
    stall_s = STALL_S
    connections_max = CONNECTIONS_MAX

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._in_head, self._head_bytes = True, 0
        self._late: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        if len(self.server_state.connections) > self.connections_max:
            transport.close()  # no answer: writing one to each of a flood costs more than the flood
            return
        self._expect_head()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is sent to."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reads_again()

    def _reads_again(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        self._reads_again()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > self.head_bytes_max:
            self._end(431, f"the request's headers are larger than {self.head_bytes_max} bytes", "headers_too_large")
        elif self._late is None:
            self._expect_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._head_came()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        self._late = self.loop.call_later(self.head_read_s, self._head_late)

    def _head_came(self) -> None:
        self._in_head = False
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _head_late(self) -> None:
        self._late = None
        if self.transport.is_closing():
            return
        if self._head_bytes == 0:
            self.transport.close()  # nothing was asked
        else:
            self._end(408, f"the request's headers took more than {self.head_read_s:g} s", "request_timeout")

    def _end(self, status: int, message: str, code: str) -> None:
        # Behind a request still being answered (pipelined), an answer here would be taken for that one's.
        if self.cycle is None or self.cycle.response_complete:
            body = Refusal(status, message, kind="request_parsing", code=code).body("")
            reason = b"Request Header Fields Too Large" if status == 431 else b"Request Timeout"
            self.transport.write(
                b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b"
                % (status, reason, len(body), body)
            )
        self._head_came()
        self.transport.close()
