"""Where routes, servers and engines come from: the resource API over HTTP, or memory."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import msgspec

from hekla.platform.api.hiding import REVEAL_HEADER
from hekla.platform.api.meta import Json, Ref, ref_of
from hekla.platform.api.registry import kind_named
from hekla.platform.base.errors import Gone, Unavailable

WATCH_LINE_BYTES_MAX = 4 * 2**20
"""One watch event: an object of the API's largest body, with room for its envelope."""


@dataclass(frozen=True)
class Change:
    """One watch event; `kind` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    kind: str
    object: Json

    @property
    def version(self) -> str:
        return str(self.object["metadata"].get("resourceVersion", ""))


class ObjectSource(Protocol):
    """Lists and watches objects of one kind in all namespaces.

    Both raise Unavailable when the platform is away, and `watch` raises Gone when `since` is too old to go on from.
    """

    async def list(self, kind: str) -> tuple[list[Json], str]:
        """The objects, and the version to watch from."""

    def watch(self, kind: str, since: str) -> AsyncIterator[Change]:
        """Changes after `since`; ends when the server ends the stream."""


class HttpObjectSource:
    """Kubernetes' list and watch over HTTP. `url` gives the resource API's base, None while it has no address."""

    def __init__(
        self, session: Callable[[], aiohttp.ClientSession], url: Callable[[], str | None], *, silence_s: float,
        token: Callable[[], str] = lambda: "",
    ) -> None:  # fmt: skip
        self._session, self._url, self._silence_s = session, url, silence_s
        self._token = token

    async def list(self, kind: str) -> tuple[list[Json], str]:
        try:
            timeout = aiohttp.ClientTimeout(total=self._silence_s)
            async with self._session().get(self._path(kind), headers=self._headers(), timeout=timeout) as response:
                body = await response.read()
                if response.status != 200:
                    raise Unavailable(f"listing {kind}: {response.status} {body[:200]!r}")
                listing = msgspec.json.decode(body)
        except (aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
            raise Unavailable(f"listing {kind}: {error or type(error).__name__}") from error
        named = kind_named(kind)
        typed = [{"apiVersion": named.api_version, "kind": named.kind, **item} for item in listing["items"]]
        return typed, str(listing["metadata"]["resourceVersion"])

    async def watch(self, kind: str, since: str) -> AsyncIterator[Change]:
        query = f"?watch=true&allowWatchBookmarks=true&resourceVersion={since}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._silence_s, sock_read=self._silence_s)
        try:
            async with self._session().get(
                self._path(kind) + query, headers=self._headers(), timeout=timeout
            ) as response:
                if response.status == 410:
                    raise Gone(f"watching {kind} from {since}: too old")
                if response.status != 200:
                    raise Unavailable(f"watching {kind}: {response.status}")
                async for line in _lines(response.content):
                    yield _change(line)
        except (aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
            raise Unavailable(f"watching {kind}: {error or type(error).__name__}") from error

    def _headers(self) -> dict[str, str]:
        token = self._token()
        return {REVEAL_HEADER: "1", **({"authorization": f"Bearer {token}"} if token else {})}

    def _path(self, kind: str) -> str:
        base, named = self._url(), kind_named(kind)
        if base is None:
            raise Unavailable("the platform has no address yet")
        return f"{base.rstrip('/')}/apis/{named.api_version}/{named.plural}"


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines; aiohttp's own reader refuses lines above its buffer."""
    held = b""
    async for chunk in content.iter_any():
        *whole, held = (held + chunk).split(b"\n")
        for line in whole:
            if line.strip():
                yield line
        if len(held) > WATCH_LINE_BYTES_MAX:
            raise Unavailable(f"a watch event is longer than {WATCH_LINE_BYTES_MAX} bytes")


def _change(line: bytes) -> Change:
    event = msgspec.json.decode(line)
    if event["type"] == "ERROR":
        status = event.get("object") or {}
        if status.get("code") == 410:
            raise Gone(status.get("message", "too old"))
        raise Unavailable(f"the watch ended: {status.get('message', status)}")
    return Change(event["type"], event["object"])


class FakeObjectSource:
    """Objects in memory, for tests and simulations. `away` makes it unreachable, `forget_history` makes versions old."""

    def __init__(self, *objects: Json) -> None:
        self._objects: dict[Ref, Json] = {}
        self._versions = itertools.count(1)
        self._version = 0
        self._history: list[tuple[int, Change]] = []
        self._oldest = 0
        self._changed = asyncio.Event()
        self.is_away = False
        self.lists = 0
        for obj in objects:
            self.put(obj)

    def put(self, *objects: Json) -> None:
        for obj in objects:
            ref = ref_of(obj)
            kind = "MODIFIED" if ref in self._objects else "ADDED"
            self._note(kind, ref, obj)

    def remove(self, obj: Json) -> None:
        ref = ref_of(obj)
        self._note("DELETED", ref, self._objects[ref])
        del self._objects[ref]

    def away(self, is_away: bool = True) -> None:
        """Unreachable from now on, running watches included; or back."""
        self.is_away = is_away
        self._wake()

    def forget_history(self) -> None:
        """A watch from any version before now is answered with Gone."""
        self._oldest = self._version
        self._history.clear()
        self._wake()

    async def list(self, kind: str) -> tuple[list[Json], str]:
        self._check()
        self.lists += 1
        return [obj for ref, obj in self._objects.items() if ref.kind == kind], str(self._version)

    async def watch(self, kind: str, since: str) -> AsyncIterator[Change]:
        seen = int(since)
        while True:
            self._check()
            if seen < self._oldest:
                raise Gone(f"version {seen} is older than {self._oldest}")
            changed = self._changed
            for version, change in [item for item in self._history if item[0] > seen]:
                seen = version
                if change.object["kind"] == kind:
                    yield change
            if changed is self._changed:
                await changed.wait()

    def _note(self, kind: str, ref: Ref, obj: Json) -> None:
        self._version = next(self._versions)
        stored = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._version)}}
        self._objects[ref] = stored
        self._history.append((self._version, Change(kind, stored)))
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _check(self) -> None:
        if self.is_away:
            raise Unavailable("the fake source is away")
