"""The composition root without Ray: a store on disk, a cluster in memory, engines without a process, real HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hekla.deployments.fake_supervisor import FakeSupervisor
from hekla.deployments.naming import actor_name
from hekla.platform.api.meta import Json
from hekla.platform.api.registry import all_kinds
from hekla.platform.base.clock import SystemClock
from hekla.platform.base.ids import SeededIds
from hekla.platform.cluster.fake import FakeCluster
from hekla.platform.cluster.interface import Node
from hekla.platform.root.service import PlatformService
from hekla.platform.root.settings import PlatformSettings
from hekla.platform.sdk import AsyncClient
from hekla.platform.store.interface import Store
from hekla.platform.store.sqlite import SqliteStore

SUPERVISOR = f"{FakeSupervisor.__module__}:{FakeSupervisor.__name__}"
DEADLINE_S = 30.0


@dataclass
class Platform:
    """Starts and stops services on one store file and one cluster, as restarts of the platform actor do."""

    settings: PlatformSettings
    cluster: FakeCluster
    ids: SeededIds = field(default_factory=lambda: SeededIds(3))
    running: dict[int, tuple[PlatformService, AsyncClient, Store]] = field(default_factory=dict)
    _count: int = 0

    async def start(self) -> tuple[int, AsyncClient]:
        clock = SystemClock()
        store = SqliteStore(self.settings.store_path, clock, self.ids)
        service = PlatformService(self.settings, store, self.cluster, clock, self.ids, supervisor=SUPERVISOR)
        client = AsyncClient(await service.start("127.0.0.1"))
        self._count += 1
        self.running[self._count] = (service, client, store)
        return self._count, client

    async def stop(self, number: int, *, stop_engines: bool) -> None:
        service, client, _ = self.running.pop(number)
        await client.close()
        await service.stop(stop_engines)

    def supervisor(self, engine: Json) -> FakeSupervisor:
        found = self.cluster.subject(actor_name(engine))
        assert isinstance(found, FakeSupervisor)
        return found


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    room = {"CPU": 4.0, "memory": 8e9}
    node = Node("node-a", "node-a", "127.0.0.1", room, room, is_head=True)
    made = Platform(PlatformSettings(home=str(tmp_path), port=8123), FakeCluster([node], SystemClock()))
    yield made
    for number in list(made.running):
        await made.stop(number, stop_engines=False)
    made.cluster.check()
    await made.cluster.close()


@pytest.fixture
def until() -> Callable[..., Any]:
    """`await until(condition, "what")`: until the coroutine function's answer is true, and that answer."""

    async def wait(holds: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + DEADLINE_S
        while not (found := await holds()):
            assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s: {what}"
            await asyncio.sleep(0.02)
        return found

    return wait


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[], list[str]]:
    """Kinds of the objects in the store's file, looked at while nothing runs."""

    def kinds() -> list[str]:
        store = SqliteStore(tmp_path / "store.db", SystemClock(), SeededIds(9))
        try:
            return [obj["kind"] for kind in sorted(all_kinds()) for obj in store.list(kind).items]
        finally:
            store.close()

    return kinds
