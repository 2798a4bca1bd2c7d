"""Follows kinds of the resource API: list, watch, and list again when a watch has fallen too far behind.

While the platform is away the last objects stay: a running deployment goes on serving without its control plane.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from hekla.platform.api.meta import Json, Ref, ref_of
from hekla.platform.base.clock import Clock
from hekla.platform.base.errors import Gone, Unavailable
from hekla.platform.base.ids import Ids
from hekla.platform.base.tasks import TaskOwner
from hekla.routing.config import WatchSettings
from hekla.routing.source import Change, ObjectSource

logger = logging.getLogger(__name__)

Objects = Mapping[str, Mapping[Ref, Json]]
"""The objects of each kind that is followed."""


class Follower:
    """Calls `build` with all objects once every kind has been listed, and soon after each change.

    Changes are gathered for `watch.rebuild_delay_s`. A `build` that raises is logged, and called again at the next change.
    """

    def __init__(
        self, name: str, kinds: tuple[str, ...], source: ObjectSource, settings: WatchSettings, *, clock: Clock, ids: Ids,
        build: Callable[[Objects], None],
    ) -> None:  # fmt: skip
        self._name, self._kinds, self._source, self._settings = name, kinds, source, settings
        self._clock, self._ids, self._build_from = clock, ids, build
        self._objects: dict[str, dict[Ref, Json]] = {}
        self._dirty = asyncio.Event()
        self._tasks = TaskOwner(name)

    async def start(self) -> None:
        for kind in self._kinds:
            self._tasks.spawn(self._follow(kind), kind)
        self._tasks.spawn(self._build(), "build")

    async def stop(self) -> None:
        await self._tasks.stop()

    async def _follow(self, kind: str) -> None:
        version, failures = "", 0
        while True:
            try:
                if not version:
                    version = await self._list(kind)
                    failures = 0
                async for change in self._source.watch(kind, version):
                    version, failures = change.version or version, 0
                    self._apply(kind, change)
            except Gone:
                version = ""
            except Unavailable as error:
                failures += 1
                logger.log(logging.WARNING if failures == 1 else logging.DEBUG, "%s; the last table stays", error)
            except Exception:
                # An answer that is not the resource API's. Giving up would leave this table as it is for ever.
                version, failures = "", failures + 1
                logger.exception("following %s failed; the last table stays", kind)
            # A stream that ends at once must not become a busy loop either.
            await self._clock.sleep(self._pause_s(failures))

    def _pause_s(self, failures: int) -> float:
        """Doubling, with jitter so that ingress replicas do not come back all at once."""
        longest: float = min(self._settings.retry_min_s * 2 ** min(failures, 20), self._settings.retry_max_s)
        return longest * (0.5 + self._ids.random() / 2)

    async def _list(self, kind: str) -> str:
        items, version = await self._source.list(kind)
        self._objects[kind] = {ref_of(item): item for item in items}
        self._dirty.set()
        return version

    def _apply(self, kind: str, change: Change) -> None:
        if change.kind == "BOOKMARK":
            return
        objects, ref = self._objects[kind], ref_of(change.object)
        if change.kind == "DELETED":
            objects.pop(ref, None)
        else:
            objects[ref] = change.object
        self._dirty.set()

    async def _build(self) -> None:
        while True:
            await self._dirty.wait()
            await self._clock.sleep(self._settings.rebuild_delay_s)
            self._dirty.clear()
            if len(self._objects) < len(self._kinds):
                continue
            try:
                self._build_from(self._objects)
            except Exception:
                logger.exception("the %s can't be built; the last one stays", self._name)
