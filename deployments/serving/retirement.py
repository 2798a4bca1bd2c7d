"""How engines go: drained when they serve, stopped, their placement group removed, their objects released.

Works on what is marked for deletion in the store, so a controller that restarts goes on where the last one was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from hekla.deployments.engine_status import draining
from hekla.deployments.naming import ANNOTATION_RETIRED, actor_name
from hekla.deployments.serving.engine_store import EngineStore
from hekla.platform.api.meta import Json
from hekla.platform.base.clock import Clock
from hekla.platform.base.errors import HeklaError
from hekla.platform.base.tasks import TaskOwner
from hekla.platform.cluster.interface import ActorGone, Cluster

logger = logging.getLogger(__name__)

ROUTER_NOTICE_S = 0.5
"""Between the phase Draining and the drain itself: routers learn of it and send nothing new."""
DRAIN_SLACK_S = 10.0
"""A drain that is this late is over: the engine is stopped by force."""
STOP_TIMEOUT_S = 20.0
"""For a supervisor to end its processes in order; after that its actor is killed, and they die with it."""
RETRY_S = 2.0


class Retirement:
    """Takes role replicas down, one task each. A role replica goes when all of its engines are marked for deletion."""

    def __init__(self, engines: EngineStore, cluster: Cluster, clock: Clock) -> None:
        self._engines = engines
        self._cluster = cluster
        self._clock = clock
        self._tasks = TaskOwner("retirement")
        self._going: set[str] = set()

    def ensure(self, engines: Iterable[Json]) -> None:
        """Begin with every role replica among these engines whose time has come."""
        units: dict[tuple[int, str, int], list[Json]] = {}
        for engine in engines:
            spec = engine["spec"]
            units.setdefault((spec["group"], spec["role"], spec["roleReplica"]), []).append(engine)
        for unit in units.values():
            if all(_is_retired(engine) for engine in unit):
                self._begin(unit)

    def _begin(self, unit: list[Json]) -> None:
        fresh = [engine for engine in unit if engine["metadata"]["uid"] not in self._going]
        if fresh:
            self._going.update(engine["metadata"]["uid"] for engine in fresh)
            self._tasks.spawn(self._take_down(fresh), fresh[0]["metadata"]["name"])

    async def stop(self) -> None:
        await self._tasks.stop()

    async def _take_down(self, unit: list[Json]) -> None:
        try:
            await self._drain(unit)
            while not await self._removed(unit):
                await self._clock.sleep(RETRY_S)
        finally:
            self._going.difference_update(engine["metadata"]["uid"] for engine in unit)

    async def _drain(self, unit: list[Json]) -> None:
        entry = unit[0]
        phase = (entry.get("status") or {}).get("phase")
        if phase not in ("Ready", "Draining"):
            return
        reason = entry["metadata"]["annotations"][ANNOTATION_RETIRED]
        for engine in unit:
            self._engines.set_status(engine, lambda old: draining(old, reason))
        await self._clock.sleep(ROUTER_NOTICE_S)
        await self._drain_entry(entry)

    async def _drain_entry(self, entry: Json) -> None:
        """Workers have no requests of their own: they go when the entry is done."""
        grace_s = float(entry["spec"]["launch"].get("drainGraceS", 30.0))
        try:
            await self._cluster.call(actor_name(entry), "drain", grace_s, timeout_s=grace_s + DRAIN_SLACK_S)
        except ActorGone:
            pass  # gone already is drained
        except HeklaError as error:
            logger.warning("%s did not drain and is stopped by force: %s", entry["metadata"]["name"], error)

    async def _removed(self, unit: list[Json]) -> bool:
        groups = {engine["spec"].get("placementGroup") for engine in unit} - {"", None}
        try:
            await asyncio.gather(*(self._stop(actor_name(engine)) for engine in unit if _has_actor(engine)))
            await asyncio.gather(*(self._cluster.remove_placement_group(str(group)) for group in groups))
        except HeklaError as error:
            logger.warning("%s can't be removed yet: %s", unit[0]["metadata"]["name"], error)
            return False
        self._engines.release(unit)
        return True

    async def _stop(self, actor: str) -> None:
        try:
            await self._cluster.call(actor, "stop", timeout_s=STOP_TIMEOUT_S)
        except ActorGone:
            pass
        except HeklaError as error:
            logger.warning("%s did not stop by itself: %s", actor, error)
        await self._cluster.stop_actor(actor)

    def __repr__(self) -> str:
        return f"Retirement({len(self._going)} engines)"


def _is_retired(engine: Json) -> bool:
    meta = engine["metadata"]
    return bool(meta.get("deletionTimestamp")) and ANNOTATION_RETIRED in (meta.get("annotations") or {})


def _has_actor(engine: Json) -> bool:
    return bool(engine["spec"].get("placementGroup"))
