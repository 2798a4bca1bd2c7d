"""A watch as lines of JSON. The reader sees what it selected begin, change and end, and bookmarks in between.

Bookmarks keep a quiet watch resumable, and tell a client that the silence is not a dead connection.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Protocol, runtime_checkable

from hekla.platform.api.hiding import without_hidden
from hekla.platform.api.kstatus import status_of
from hekla.platform.api.meta import Json, Ref, ref_of
from hekla.platform.api.registry import all_kinds
from hekla.platform.base.clock import Clock
from hekla.platform.base.errors import ApiError
from hekla.platform.base.tasks import TaskOwner
from hekla.platform.server.asked import Selection
from hekla.platform.store.interface import Listing, Store, WatchEvent

BOOKMARK_PERIOD_S = 5.0
"""A third of the client's patience with silence, and below common proxies' idle limits."""

WATCH_TIMEOUT_S_DEFAULT = 1800
WATCH_TIMEOUT_S_MAX = 86_400

INITIAL_END = {"k8s.io/initial-events-end": "true"}


@runtime_checkable
class Bookmarking(Protocol):
    """A store's watch that can be told to note the version it has come to, and to end."""

    def bookmark(self) -> None: ...

    def end(self) -> None: ...


class Watch:
    """One client's watch: begins at construction, runs when iterated."""

    def __init__(
        self, store: Store, kinds: tuple[str, ...], selection: Selection, since: str | None,
        shown: Callable[[Json], Json] = without_hidden,
    ) -> None:  # fmt: skip
        """`shown` gives an object as this client may see it."""
        self._kinds, self._shown = kinds, shown
        self._selection = selection
        self._left: set[Ref] = set()
        self._initial: list[Listing] = []
        if since is None:
            self._initial = [store.list(kind, selection.namespace) for kind in kinds]
            since = self._initial[0].resource_version
        self._since = since
        self._events = store.watch(kinds, since)

    async def lines(self, clock: Clock, timeout_s: float) -> AsyncIterator[str]:
        """Lines until `timeout_s` have passed or the store closes; the last may be an ERROR with a Status."""
        for line in self._first_lines():
            yield line
        async with TaskOwner("watch") as tasks:
            tasks.spawn(self._keep_alive(clock, timeout_s), "keep-alive")
            try:
                async for event in self._events:
                    line = self._line_for(event)
                    if line:
                        yield line
            except ApiError as error:
                yield _line("ERROR", status_of(error))

    def _first_lines(self) -> list[str]:
        if not self._initial:
            return []
        objects = [obj for listing in self._initial for obj in listing.items if self._selection.holds(obj)]
        end = {"metadata": {"resourceVersion": self._since, "annotations": INITIAL_END}}
        self._initial = []
        return [*(_line("ADDED", self._shown(obj)) for obj in objects), _line("BOOKMARK", self._typed(end))]

    async def _keep_alive(self, clock: Clock, timeout_s: float) -> None:
        """Bookmarks, and the end when the time is up."""
        deadline = clock.monotonic() + timeout_s
        assert isinstance(self._events, Bookmarking)
        while (left_s := deadline - clock.monotonic()) > 0:
            await clock.sleep(min(BOOKMARK_PERIOD_S, left_s))
            self._events.bookmark()
        self._events.end()

    def _line_for(self, event: WatchEvent) -> str:
        """The event as this client sees it; empty when it isn't concerned."""
        if event.type == "BOOKMARK":
            return _line("BOOKMARK", self._typed(event.object))
        if not self._selection.is_in_scope(event.object):
            return ""
        ref = ref_of(event.object)
        if event.type == "DELETED" or self._selection.holds(event.object):
            was_left = ref in self._left
            self._left.discard(ref)
            return _line(event.type, self._shown(event.object)) if not (was_left and event.type == "DELETED") else ""
        # Its labels changed away from the selection (or were never in it): for this client it is gone.
        if event.type == "ADDED" or ref in self._left:
            self._left.add(ref)
            return ""
        self._left.add(ref)
        return _line("DELETED", self._shown(event.object))

    def _typed(self, bookmark: Json) -> Json:
        if len(self._kinds) != 1:
            return {"kind": "Bookmark", "apiVersion": "hekla.io/v1alpha1", "metadata": bookmark["metadata"]}
        kind = all_kinds()[self._kinds[0]]
        return {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": bookmark["metadata"]}


def _line(kind: str, obj: Json) -> str:
    return json.dumps({"type": kind, "object": obj}, ensure_ascii=False, separators=(",", ":")) + "\n"
