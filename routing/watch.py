"""Keeps the routing table current."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from hekla.platform.base.clock import Clock
from hekla.platform.base.ids import Ids
from hekla.routing.config import WatchSettings
from hekla.routing.following import Follower, Objects
from hekla.routing.source import ObjectSource
from hekla.routing.table import RoutingTable, build_table

logger = logging.getLogger(__name__)

KINDS = ("ModelRoute", "ModelServer", "Engine")


class TableKeeper:
    """`table` is always usable; `synced` says whether every kind has been listed once."""

    def __init__(
        self, source: ObjectSource, settings: WatchSettings, *, clock: Clock, ids: Ids,
        on_table: Callable[[RoutingTable], None] = lambda table: None,
    ) -> None:  # fmt: skip
        self._on_table = on_table
        self._first_table = asyncio.Event()
        self._follower = Follower("routing-table", KINDS, source, settings, clock=clock, ids=ids, build=self._build)
        self.table = RoutingTable()

    @property
    def synced(self) -> bool:
        return self._first_table.is_set()

    async def start(self) -> None:
        await self._follower.start()

    async def wait_synced(self) -> None:
        await self._first_table.wait()

    async def stop(self) -> None:
        await self._follower.stop()

    def _build(self, objects: Objects) -> None:
        table = build_table(*(objects[kind].values() for kind in KINDS))
        for name in table.problems.keys() - self.table.problems.keys():
            logger.warning("not routed: %s: %s", name, table.problems[name])
        self.table = table
        self._first_table.set()
        self._on_table(table)
