"""Runs controllers over a store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hekla.platform.base.clock import Clock
from hekla.platform.base.ids import Ids
from hekla.platform.control.interface import Controller
from hekla.platform.control.pump import ControllerStats, Pump
from hekla.platform.store.interface import Store

WORKERS = 8
"""Reconciles of one controller that run at once: enough to hide waiting, few enough to spare the cluster."""


class ControllerRuntime:
    """At `start` every object of a controller's kind is reconciled once, and after that whatever events name.

    `workers` is per controller, so that one that waits can't hold up another.
    """

    def __init__(
        self, store: Store, controllers: Sequence[Controller], clock: Clock, ids: Ids, workers: int = WORKERS
    ) -> None:
        names = [controller.name for controller in controllers]
        if len(set(names)) != len(names):
            raise ValueError(f"controller names must differ: {', '.join(sorted(names))}")
        self._store = store
        self._controllers = tuple(controllers)
        self._clock = clock
        self._ids = ids
        self._workers = workers
        self._pumps: dict[str, Pump] = {}
        self._step = asyncio.Event()

    async def start(self) -> None:
        """Subscribe at once; reconciles run from the next turn of the loop on. May follow a `stop`."""
        if self._pumps:
            raise RuntimeError("the controller runtime is already running")
        for controller in self._controllers:
            self._pumps[controller.name] = Pump(
                controller, self._store, self._clock, self._ids, workers=self._workers, notify=self._stepped
            )
        for pump in self._pumps.values():
            pump.start()

    async def stop(self) -> None:
        """Cancel every reconcile and wait until all have ended."""
        pumps, self._pumps = self._pumps, {}
        await asyncio.gather(*(pump.stop() for pump in pumps.values()))
        self._stepped()

    async def idle(self) -> None:
        """Return when every event has been read and no reconcile is running or ready; timers may be set."""
        while not all(pump.is_idle for pump in self._pumps.values()):
            await self._step.wait()

    def snapshot(self) -> dict[str, ControllerStats]:
        """Counters of each running controller by its name."""
        return {name: pump.stats() for name, pump in self._pumps.items()}

    def _stepped(self) -> None:
        # A new event each time wakes all who wait now, and only them.
        step, self._step = self._step, asyncio.Event()
        step.set()

    def __repr__(self) -> str:
        return f"ControllerRuntime({', '.join(map(repr, self._pumps.values())) or 'stopped'})"
