"""The adapters of a supervised engine: `AdapterKeeper` with the node's models folder and the engine's own HTTP."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from hekla.deployments.engines.node import NodeFacts
from hekla.deployments.launch import EngineLaunch
from hekla.deployments.lora.engine_api import AdapterApi, HttpAdapterApi
from hekla.deployments.lora.files import check_folder
from hekla.deployments.lora.keeper import AdapterKeeper
from hekla.deployments.lora.model import AdapterAsk
from hekla.deployments.lora.slots import adapter_slots, rank_max
from hekla.deployments.models.fetch import cache_folder, fetch
from hekla.deployments.models.source import Source
from hekla.platform.api.kinds.engine import EngineAdapter
from hekla.platform.base.clock import Clock
from hekla.platform.base.errors import Unavailable
from hekla.platform.base.tasks import TaskOwner


class SupervisedAdapters:
    """Part of an `EngineSupervisor`. Adapters asked for before the engine is ready are loaded when it is."""

    def __init__(
        self, launch: EngineLaunch, node: NodeFacts, sources: Mapping[str, Source], *, clock: Clock,
        tasks: TaskOwner, on_change: Callable[[], None],
    ) -> None:  # fmt: skip
        self._launch, self._node, self._sources = launch, node, sources
        self._session: aiohttp.ClientSession | None = None
        self._address = ""
        slots = adapter_slots(launch) if launch.worker_index == 0 else 0
        self._keeper = AdapterKeeper(slots, self._api, self._fetch, clock=clock, tasks=tasks, on_change=on_change)

    @property
    def slots(self) -> int:
        return self._keeper.slots

    @property
    def state(self) -> list[EngineAdapter]:
        return self._keeper.adapters

    def models(self, listed: Iterable[str]) -> tuple[str, ...]:
        return self._keeper.models(listed)

    def ask(self, owner: str, wanted: list[dict[str, Any]]) -> None:
        """Raises ValueError on what is no `AdapterAsk`."""
        self._keeper.ask(owner, [AdapterAsk.model_validate(ask) for ask in wanted])

    def open(self, address: str) -> None:
        """The engine is ready there; idempotent."""
        self._address = address
        self._keeper.open()

    async def close(self) -> None:
        self._keeper.close()
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _api(self) -> AdapterApi:
        if not self._address:
            raise Unavailable("the engine has no address yet")
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return HttpAdapterApi(self._launch.engine, self._address, self._session)

    async def _fetch(self, uri: str) -> Path:
        """Once per node and URI, as models are; the simulated engine's adapters are names, like its models."""
        if self._launch.engine == "Simulated":
            return Path(uri)
        env = {**self._node.environ, **self._launch.env}
        folder = cache_folder(self._launch.cache_uri, self._node.cache_dir, env)
        bring = functools.partial(fetch, uri, folder, env, lambda *_: None, sources=self._sources)
        path = await asyncio.to_thread(bring)
        await asyncio.to_thread(check_folder, path, rank_max(self._launch))
        return path
