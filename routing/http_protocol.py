"""uvicorn's HTTP protocol with limits it lacks: a head's size and time, a client that never reads, how many connect.

The parser holds a head that is not whole in memory, a connection that never sends one is open for ever, a client
that takes no bytes holds its engine's stream for ever, one that pipelines is not seen to leave, and one that was answered
early may send for ever; none of it is seen by an ASGI application.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from hekla.routing.lingering import LINGER_S
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
PIPELINED_MAX = 64
"""Requests that wait on one connection for the one being answered: browsers' old default was 8. Each is some kB here and
may be 20 bytes there."""


class BoundedHeads(HttpToolsProtocol):
    head_bytes_max = HEAD_BYTES_MAX
    head_read_s = HEAD_READ_S
    stall_s = STALL_S
    connections_max = CONNECTIONS_MAX
    pipelined_max = PIPELINED_MAX
    rest_s = LINGER_S

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._in_head, self._head_bytes = True, 0
        self._late: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._answered: RequestResponseCycle | None = None

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
        self._rest_came()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn's own, left when a connection breaks, keeps all this for its time
        waiting = [cycle for cycle, _ in self.pipeline]
        self.pipeline.clear()
        for cycle in (*waiting, self._answered, self.cycle):
            if cycle is not None:
                cycle.body = bytearray()
        answered, self._answered = self._answered, None
        if answered is not None and not answered.response_complete:
            # With another request behind it uvicorn tells only the last one that its client has left.
            answered.disconnected = True
            answered.message_event.set()

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
        if len(self.pipeline) >= self.pipelined_max:
            self.transport.abort()
            raise ValueError("too many requests are pipelined")  # the parser reads no further
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._rest_came()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle is self._answered and self.cycle.more_body and not self.transport.is_closing():
            # The connection is kept for its next request, and what is left of this one's body is dropped.
            self._rest = self.loop.call_later(self.rest_s, self.transport.close)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _rest_came(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

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
