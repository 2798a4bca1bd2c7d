"""Engines' logs as plain text: a part of one, its last lines, or as it is written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from hekla.platform.api.meta import Json, Ref
from hekla.platform.base.clock import Clock
from hekla.platform.base.errors import HeklaError, NotFound
from hekla.platform.server import asked
from hekla.platform.store.interface import Store

LOG_READ_BYTES_MAX = 256 * 1024
"""Read from an engine's node in one go."""

LOG_TAIL_BYTES_MAX = 256 * 1024
"""How far back `tailLines` looks."""

LOG_TAIL_LINES_MAX = 10_000

LOG_POLL_S = 0.5
"""How often a followed log is asked for more: quick enough for an eye."""


class LogSource(Protocol):
    async def read(self, namespace: str, name: str, offset: int, limit: int) -> Json:
        """`{"text", "next", "size"}`: bytes [offset, offset+limit) of the engine's log as text, where to read on, and
        the log's size; a negative offset counts from the end. Raises NotFound or Temporary."""


class FakeLogSource:
    """Logs in memory, by engine."""

    def __init__(self) -> None:
        self._logs: dict[tuple[str, str], bytes] = {}

    def write(self, namespace: str, name: str, text: str) -> None:
        self._logs[namespace, name] = self._logs.get((namespace, name), b"") + text.encode()

    def remove(self, namespace: str, name: str) -> None:
        self._logs.pop((namespace, name), None)

    async def read(self, namespace: str, name: str, offset: int, limit: int) -> Json:
        log = self._logs.get((namespace, name))
        if log is None:
            raise NotFound(f"Engine {namespace}/{name} has no log")
        start = max(0, len(log) + offset) if offset < 0 else offset
        piece = log[start : start + limit]
        return {"text": piece.decode(errors="replace"), "next": start + len(piece), "size": len(log)}


class EngineLogs:
    def __init__(self, store: Store, source: LogSource, clock: Clock) -> None:
        self._store = store
        self._source = source
        self._clock = clock

    async def log(self, request: Request) -> Response:
        """`offset` and `limit` in bytes, or `tailLines`; `follow` goes on until the engine is gone."""
        ref = Ref("Engine", request.path_params["namespace"], request.path_params["name"])
        self._store.get(ref)
        follow = asked.flag(request, "follow")
        tail = asked.whole_number(request, "tailLines", -1, low=0, high=LOG_TAIL_LINES_MAX)
        offset = asked.whole_number(request, "offset", 0, low=-(2**53), high=2**53)
        limit = asked.whole_number(request, "limit", 2**53, low=0, high=2**53)
        # Read once before answering, so that what is refused is refused with a proper status.
        piece = await self._first(ref, offset, limit, tail)
        text = self._text(ref, piece, limit, follow=follow)
        return StreamingResponse(text, media_type="text/plain; charset=utf-8", headers={"cache-control": "no-store"})

    async def _first(self, ref: Ref, offset: int, limit: int, tail: int) -> Json:
        if tail < 0:
            return await self._source.read(ref.namespace, ref.name, offset, min(limit, LOG_READ_BYTES_MAX))
        piece = await self._source.read(ref.namespace, ref.name, -LOG_TAIL_BYTES_MAX, LOG_TAIL_BYTES_MAX)
        lines = str(piece["text"]).splitlines(keepends=True)
        return {**piece, "text": "".join(lines[len(lines) - tail :] if tail < len(lines) else lines)}

    async def _text(self, ref: Ref, piece: Json, limit: int, *, follow: bool) -> AsyncIterator[str]:
        sent = 0
        while True:
            sent += len(str(piece["text"]).encode())
            if piece["text"]:
                yield str(piece["text"])
            if sent >= limit:
                return
            is_at_end = int(piece["next"]) >= int(piece["size"])
            if is_at_end:
                if not follow:
                    return
                await self._clock.sleep(LOG_POLL_S)
            try:
                wanted = min(limit - sent, LOG_READ_BYTES_MAX)
                piece = await self._source.read(ref.namespace, ref.name, int(piece["next"]), wanted)
            except HeklaError:
                # The engine is gone, and with it whatever more there was.
                return
