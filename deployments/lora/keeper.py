"""Keeps one engine's adapters as they are asked for. Runs in the engine's supervisor.

        asked for            fetched            a slot is free
  (none) -> Fetching ----------------> Loading ----------------> Loaded
              | Failed: with the reason, until it is asked for no more     | not asked for
              |                                                            v
              (none) <--------------------- unused for a while ------- Draining

An adapter that drains is told to nobody any more (it leaves the engine's models), but keeps its slot until no request
uses it: then it is unloaded, and only then may another take the slot. Asked for again meanwhile it is simply loaded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hekla.deployments.lora.engine_api import AdapterApi
from hekla.deployments.lora.model import AdapterAsk
from hekla.platform.api.kinds.engine import AdapterState, EngineAdapter
from hekla.platform.base.clock import Clock
from hekla.platform.base.errors import HeklaError
from hekla.platform.base.tasks import TaskOwner

logger = logging.getLogger(__name__)

UNROUTED_S = 2.0
"""From the word that an adapter leaves until every ingress has read it: a watch event and a rebuilt table, with room."""
USE_PERIOD_S = 0.25
IDLE_READINGS = 2
"""An adapter counts as unused after this many readings in a row: a request may still be on its way."""
OWNERS_MAX = 64
"""ModelServers that share one engine."""

Fetch = Callable[[str], Awaitable[Path]]
"""Brings an adapter to this node and returns its folder, checked. Raises HeklaError."""


@dataclass
class _Entry:
    name: str
    uri: str
    owner: str
    state: AdapterState = "Fetching"
    message: str = ""
    has_slot: bool = False
    is_talking: bool = False
    """The engine is being asked: not to be cut short."""
    task: asyncio.Task[None] | None = None


class AdapterKeeper:
    """`ask` says what is wanted, any number of times; `on_change` is called after each change of `adapters`."""

    def __init__(
        self, slots: int, api: Callable[[], AdapterApi], fetch: Fetch, *, clock: Clock, tasks: TaskOwner,
        on_change: Callable[[], None],
    ) -> None:  # fmt: skip
        self._slots, self._api, self._fetch = slots, api, fetch
        self._clock, self._tasks, self._changed = clock, tasks, on_change
        self._asks: dict[str, tuple[AdapterAsk, ...]] = {}
        self._entries: dict[str, _Entry] = {}
        self._freed = asyncio.Event()
        self._is_open = False

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def adapters(self) -> list[EngineAdapter]:
        entries = sorted(self._entries.values(), key=lambda entry: entry.name)
        return [EngineAdapter(name=e.name, state=e.state, message=e.message, owner=e.owner) for e in entries]

    def models(self, listed: Iterable[str]) -> tuple[str, ...]:
        """What the engine says it serves, as clients are to know it: without what leaves, with what has just come."""
        loaded = [entry.name for entry in self._entries.values() if entry.state == "Loaded"]
        names = [name for name in listed if name not in self._entries]
        return (*names, *sorted(loaded))

    def ask(self, owner: str, wanted: Iterable[AdapterAsk]) -> None:
        """What `owner` wants from now on, instead of what it wanted before. Returns at once."""
        asks = tuple(wanted)
        self._asks.pop(owner, None)
        if asks:
            if len(self._asks) >= OWNERS_MAX:
                raise ValueError(f"{len(self._asks) + 1} ModelServers want adapters here; allowed: {OWNERS_MAX}")
            self._asks[owner] = asks
        self._bring_about()

    def open(self) -> None:
        """The engine is ready; idempotent."""
        if not self._is_open:
            self._is_open = True
            self._bring_about()

    def close(self) -> None:
        """The engine is on its way out: nothing is loaded or unloaded any more."""
        self._is_open = False
        for entry in self._entries.values():
            if entry.task is not None and not entry.is_talking:
                entry.task.cancel()

    def _wanted(self) -> dict[str, tuple[str, AdapterAsk]]:
        """By name: who wants it first, and what."""
        found: dict[str, tuple[str, AdapterAsk]] = {}
        for owner, asks in sorted(self._asks.items()):
            for ask in asks:
                found.setdefault(ask.name, (owner, ask))
        return found

    def _bring_about(self) -> None:
        """One step for each adapter, from what is to what is wanted. Called whenever either changes."""
        if not self._is_open:
            return
        wanted = self._wanted()
        before = self.adapters
        for entry in list(self._entries.values()):
            owner, ask = wanted.get(entry.name, ("", None))
            if ask is not None and ask.uri == entry.uri:
                entry.owner = owner
                self._keep(entry)
            else:
                self._drop(entry)
        for name, (owner, ask) in wanted.items():
            if name not in self._entries:
                entry = self._entries[name] = _Entry(name, ask.uri, owner)
                entry.task = self._tasks.spawn(self._bring(entry), f"adapter {name}")
        if self.adapters != before:
            self._changed()

    def _keep(self, entry: _Entry) -> None:
        if entry.state == "Draining" and not entry.is_talking:
            if entry.task is not None:
                entry.task.cancel()
            entry.state, entry.message = "Loaded", ""

    def _drop(self, entry: _Entry) -> None:
        if entry.state == "Draining" or entry.is_talking:
            return  # on its way out already, or looked at again when the engine has answered
        if entry.state == "Loaded":
            entry.state, entry.message = "Draining", "no new requests; unloaded when those it has are finished"
            entry.task = self._tasks.spawn(self._let_go(entry), f"adapter {entry.name} drains")
            return
        if entry.task is not None:
            entry.task.cancel()
        self._forget(entry)

    def _forget(self, entry: _Entry) -> None:
        if self._entries.get(entry.name) is entry:
            del self._entries[entry.name]
        self._freed.set()

    async def _bring(self, entry: _Entry) -> None:
        try:
            if not self._slots:
                self._set(entry, "Failed", "the engine runs without --enable-lora")
                return
            path = await self._fetch(entry.uri)
            self._set(entry, "Loading", "waits for a free slot" if self._occupied() >= self._slots else "")
            await self._take_slot(entry)
            self._set(entry, "Loading", "")
            entry.is_talking = True
            await self._api().load(entry.name, str(path))
            entry.is_talking = False
            self._set(entry, "Loaded", "")
        except HeklaError as error:
            self._fail(entry, str(error))
        except Exception as error:
            logger.exception("adapter %s could not be loaded", entry.name)
            self._fail(entry, f"{type(error).__name__}: {error}")
        self._bring_about()

    def _fail(self, entry: _Entry, reason: str) -> None:
        entry.has_slot = entry.is_talking = False
        self._set(entry, "Failed", reason)
        self._freed.set()

    def _occupied(self) -> int:
        return sum(entry.has_slot for entry in self._entries.values())

    async def _take_slot(self, entry: _Entry) -> None:
        while self._occupied() >= self._slots:
            self._freed.clear()
            await self._freed.wait()
        entry.has_slot = True

    async def _let_go(self, entry: _Entry) -> None:
        await self._clock.sleep(UNROUTED_S)
        idle = 0
        while idle < IDLE_READINGS:
            try:
                idle = 0 if entry.name in await self._api().in_use() else idle + 1
            except HeklaError as error:
                logger.info("adapter %s: %s", entry.name, error)
            await self._clock.sleep(USE_PERIOD_S)
        entry.is_talking = True
        try:
            await self._api().unload(entry.name)
        except HeklaError as error:
            entry.is_talking = False
            self._fail(entry, str(error))
        else:
            self._forget(entry)
            self._changed()
        self._bring_about()

    def _set(self, entry: _Entry, state: AdapterState, message: str) -> None:
        if self._entries.get(entry.name) is entry and (entry.state, entry.message) != (state, message):
            entry.state, entry.message = state, message
            self._changed()

    def __repr__(self) -> str:
        states = ", ".join(f"{entry.name} {entry.state}" for entry in self._entries.values())
        return f"AdapterKeeper({self._slots} slots: {states or 'none'})"
