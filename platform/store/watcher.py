"""One watch: the queue between the store and one reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from hekla.platform.base.errors import Gone
from hekla.platform.base.limits import WATCH_QUEUE_EVENTS_MAX
from hekla.platform.store.interface import WatchEvent
from hekla.platform.store.rules import decode
from hekla.platform.store.table import Change

BOOKMARK_CHANGES = 1000
"""Changes of other kinds after which a quiet watcher learns the version, so that it can resume from there: well
below the history's length."""


class Watcher:
    """Events of some kinds, in order, each its reader's own copy. For one reader on one event loop."""

    def __init__(
        self, kinds: tuple[str, ...], version: Callable[[], int], queue_max: int = WATCH_QUEUE_EVENTS_MAX
    ) -> None:
        self._kinds = kinds
        self._version = version
        self._queue_max = queue_max
        self._queue: deque[Change | int] = deque()  # a number is a bookmark
        self._passed_over = 0
        self._state = "open"
        self._reader: asyncio.Future[None] | None = None

    @property
    def pending(self) -> int:
        """Events that wait to be read; that the watch was cut off counts as one."""
        return len(self._queue) + (self._state == "gone")

    def offer(self, changes: Sequence[Change]) -> None:
        """Queue what this watch is about; too many, and the watch is cut off."""
        for change in changes:
            if self._state != "open":
                break
            if not self._kinds or change.kind in self._kinds:
                self._append(change)
            else:
                self._pass_over(change.version)
        self._wake()

    def bookmark(self) -> None:
        """Queue a BOOKMARK of the store's current version, behind everything up to it."""
        if self._state == "open":
            self._append_bookmark(self._version())
            self._wake()

    def end(self) -> None:
        """What is queued can still be read; then the iteration ends."""
        if self._state == "open":
            self._state = "ended"
        self._wake()

    async def aclose(self) -> None:
        """End at once and drop what is queued."""
        self._queue.clear()
        self.end()

    def __aiter__(self) -> Watcher:
        return self

    async def __anext__(self) -> WatchEvent:
        while not self._queue:
            if self._state == "gone":
                raise Gone(f"the watcher is more than {self._queue_max} events behind: list again")
            if self._state == "ended":
                raise StopAsyncIteration
            await self._wait()
        return self._event(self._queue.popleft())

    def _append(self, item: Change | int) -> None:
        self._passed_over = 0
        self._queue.append(item)
        if len(self._queue) > self._queue_max:
            self._queue.clear()
            self._state = "gone"

    def _pass_over(self, version: int) -> None:
        self._passed_over += 1
        if self._passed_over >= BOOKMARK_CHANGES:
            self._append_bookmark(version)

    def _append_bookmark(self, version: int) -> None:
        if self._queue and isinstance(self._queue[-1], int):
            self._queue.pop()
        self._append(version)

    async def _wait(self) -> None:
        if self._reader is not None:
            raise RuntimeError("a watch has one reader: another task already waits for its next event")
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _wake(self) -> None:
        reader = self._reader
        # A tool may write after the loop of an old reader is gone; that reader can't be woken and must not harm.
        if reader is not None and not reader.done() and not reader.get_loop().is_closed():
            reader.set_result(None)

    def _event(self, item: Change | int) -> WatchEvent:
        if isinstance(item, Change):
            return WatchEvent(item.type, decode(item.text))
        kind = self._kinds[0] if len(self._kinds) == 1 else ""
        return WatchEvent("BOOKMARK", {"kind": kind, "metadata": {"resourceVersion": str(item)}})

    def __repr__(self) -> str:
        return f"Watcher({', '.join(self._kinds) or 'all kinds'}: {self._state}, {self.pending} pending)"
