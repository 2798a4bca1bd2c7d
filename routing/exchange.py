"""One HTTP exchange with a client over raw ASGI, and what is remembered of it for metrics and the access log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from hekla.platform.base.tasks import TaskOwner
from hekla.routing.config import LimitSettings, RoutingSettings
from hekla.routing.headers import RawHeaders
from hekla.routing.identity.interface import NOBODY
from hekla.routing.lingering import drop_rest
from hekla.routing.observe.story import Story
from hekla.routing.observe.tracing import NO_TRACE, Trace
from hekla.routing.refusal import Refusal
from hekla.routing.table import Match
from hekla.routing.usage import Usage

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON_TYPE = (b"content-type", b"application/json")


class ClientGone(Exception):
    """The client left before its request was whole."""


class Exchange:
    """The client's side of one request."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, request_id: str, started_s: float) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        self.request_id, self.started_s = request_id, started_s
        self.path: str = scope["path"]
        self.path_label = self.path
        """The path as metrics name it."""
        self.method: str = scope["method"]
        self.raw_headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._first_headers: dict[bytes, bytes] | None = None
        self.model = ""
        self.caller = NOBODY
        self.match: Match | None = None
        self.backend = ""
        self.upstream_model = ""
        """What an external provider was asked for."""
        self.status = 0
        self.error_kind = ""
        self.error_message = ""
        self.upstream_status = 0
        self.upstream_attempts = 0
        self.upstream_started_s: float | None = None
        self.first_byte_s: float | None = None
        self.upstream_ended_s: float | None = None
        self.prefill_s: float | None = None
        self.estimated_tokens = 0
        self.usage: Usage | None = None
        self.story = Story()
        self.trace: Trace = NO_TRACE
        self.late_headers: Callable[[], RawHeaders] | None = None
        """Asked for further headers when the answer begins: what is to be told of it is known only then."""
        self.added_headers: RawHeaders = []
        """The ingress's own, on whatever the client is answered."""
        self.is_stream = False
        """The answer that has begun is a stream of events."""
        self.is_half_read = False
        """More of the request comes than has been read."""
        self.lingers = False
        """It has been answered, and `linger` is to end it."""

    def header(self, name: bytes) -> bytes | None:
        """Its first value; a lower-case name."""
        found = self._first_headers
        if found is None:
            found = self._first_headers = dict(reversed(self.raw_headers))
        return found.get(name)

    async def read_body(self, limits: LimitSettings, held: HeldBytes | None = None) -> bytes:
        """Raises Refusal 413, 408 or, when `held` has no room, 429; or ClientGone. What it holds, `held` counts."""
        length = self.header(b"content-length")
        if length is not None and length.isdigit() and int(length) > limits.body_bytes_max:
            raise _too_large(limits.body_bytes_max)
        self.is_half_read = True
        body = bytearray()  # grows in place; small parts kept one by one would take many times their bytes
        try:
            return await self._read_into(body, limits, held)
        except BaseException:
            # Not held while the client is answered: the error's traceback would keep it.
            body.clear()
            if held is not None:
                held.free()
            raise

    async def _read_into(self, body: bytearray, limits: LimitSettings, held: HeldBytes | None) -> bytes:
        deadline_s = asyncio.get_running_loop().time() + limits.body_deadline_s
        while True:
            message = await self._next_part(len(body), limits, deadline_s)
            if message["type"] == "http.disconnect":
                raise ClientGone
            part: bytes = message.get("body", b"")
            if len(body) + len(part) > limits.body_bytes_max:
                raise _too_large(limits.body_bytes_max)
            if held is not None:
                held.take(len(part))
            if not message.get("more_body", False):
                self.is_half_read = False
                if not body:
                    return part
                body += part
                whole = bytes(body)
                body.clear()
                return whole
            body += part

    async def _next_part(self, read_bytes: int, limits: LimitSettings, deadline_s: float) -> Message:
        now_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(min(now_s + limits.body_read_timeout_s, deadline_s)):
                return await self.receive()
        except TimeoutError as error:
            message = f"no more of the request's body for {limits.body_read_timeout_s:g} s"
            if asyncio.get_running_loop().time() >= deadline_s:
                message = f"the request's body was not whole within {limits.body_deadline_s:g} s"
            message += f" after {read_bytes} bytes"
            raise Refusal(408, message, kind="request_parsing", code="request_timeout") from error

    async def begin(self, status: int, headers: RawHeaders) -> None:
        self.status = status
        self.is_stream = any(k == b"content-type" and v.startswith(b"text/event-stream") for k, v in headers)
        if self.late_headers is not None:
            headers = [*headers, *self.late_headers()]
        if self.added_headers:
            headers = [*headers, *self.added_headers]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, chunk: bytes) -> None:
        await self.send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def finish(self, chunk: bytes = b"") -> None:
        await self.send({"type": "http.response.body", "body": chunk, "more_body": False})

    async def answer(self, status: int, body: bytes, headers: RawHeaders | None = None) -> None:
        """A whole answer of the ingress itself; JSON unless `headers` say otherwise."""
        length = (b"content-length", str(len(body)).encode())
        named = (b"x-request-id", self.request_id.encode("latin-1"))
        await self.begin(status, [*(headers or [JSON_TYPE]), length, named])
        await (self.write(body) if self.lingers else self.finish(body))

    async def refuse(self, refusal: Refusal) -> None:
        self.error_kind, self.error_message = refusal.kind, refusal.log_message
        headers = [(b"content-type", refusal.content_type), *refusal.headers()]
        if self.is_half_read or refusal.status in (401, 403, 408, 413):
            headers.append((b"connection", b"close"))  # what is left of the body is not wanted
            self.lingers = refusal.status != 408  # who was too slow has had time enough
        await self.answer(refusal.status, refusal.body(self.path), headers)

    async def linger(self) -> None:
        """Ends an answer after which the client may be still sending; takes up to `lingering.LINGER_S`."""
        if not self.lingers:
            return
        await drop_rest(self.receive)
        with contextlib.suppress(OSError):  # some servers' way to say that the client has left
            await self.finish()


class HeldBytes:
    """Bytes of bodies held for one request, out of what all requests together may hold."""

    __slots__ = ("_pool", "held")

    def __init__(self, pool: BodyPool) -> None:
        self._pool, self.held = pool, 0

    def take(self, count: int) -> None:
        """Raises Refusal 429 when there is no room."""
        self._pool.take(count)
        self.held += count

    def free(self) -> None:
        self._pool.held -= self.held
        self.held = 0


class BodyPool:
    """How many bytes of request bodies a replica holds."""

    def __init__(self, settings: RoutingSettings) -> None:
        self.held = 0
        self.use(settings)

    def use(self, settings: RoutingSettings) -> None:
        self._bytes_max, self._retry_after_s = settings.limits.bodies_bytes_max, settings.retry_after_s

    def take(self, count: int) -> None:
        if self.held + count > self._bytes_max:
            message = (
                f"this ingress holds {self._bytes_max} bytes of requests (limits.bodies_bytes_max); try again later"
            )
            again_s = self._retry_after_s
            raise Refusal(429, message, kind="scheduling", code="ingress_busy", retry_after_s=again_s)
        self.held += count


class Departure:
    """Cancels the task that serves a request when its client leaves, which closes the engine's connection."""

    __slots__ = ("_main", "_over", "_receive", "_watcher", "gone")

    def __init__(self, receive: Receive, tasks: TaskOwner, main: asyncio.Task[Any] | None) -> None:
        self._receive, self._main = receive, main
        self._over = self.gone = False
        self._watcher: asyncio.Task[None] | None = tasks.spawn(self._watch(), "departure")

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._over and self._main is not None:
            self.gone = True
            self._main.cancel()

    def stop(self) -> None:
        self._over = True
        if self._watcher is not None:
            self._watcher.cancel()
        # A cancelled task keeps its frames, they keep this, and this would keep the task: garbage that waits for the collector.
        self._watcher = self._main = None


def _too_large(limit: int) -> Refusal:
    return Refusal(
        413,
        f"the request's body is larger than {limit} bytes (limits.body_bytes_max)",
        kind="request_parsing",
        code="request_too_large",
    )
