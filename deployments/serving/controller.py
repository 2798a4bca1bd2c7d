"""The ModelServing controller: reads the world, decides, acts, and says how things stand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from hekla.deployments.naming import FINALIZER_SERVING
from hekla.deployments.serving.adoption import remove_orphans
from hekla.deployments.serving.announcements import Announcer
from hekla.deployments.serving.decide import REASON_DELETED, decide
from hekla.deployments.serving.engine_store import EngineStore
from hekla.deployments.serving.engine_watch import EngineWatch
from hekla.deployments.serving.instructions import Plan
from hekla.deployments.serving.model import STARTED_PHASES, World
from hekla.deployments.serving.placing import Placer, Target
from hekla.deployments.serving.reading import read_world, write_crashes
from hekla.deployments.serving.retirement import Retirement
from hekla.deployments.serving.runner import Outcome, Runner
from hekla.deployments.serving.status import Notes, status_of
from hekla.platform.api.meta import Json, Ref, ref_of
from hekla.platform.api.onray import ignored_on_ray
from hekla.platform.base.clock import Clock, rfc3339
from hekla.platform.base.errors import NotFound
from hekla.platform.base.ids import Ids
from hekla.platform.cluster.interface import Cluster
from hekla.platform.control.events import EventRecorder
from hekla.platform.control.interface import Again
from hekla.platform.store.interface import Store

ROOM_RETRY_S = 2.0
"""How often pending role replicas are planned anew: planning is cheap, and nothing tells when a node joins."""


class ModelServingController:
    """Implements `Controller`. Call `close` after the runtime stopped: watches and retirements end, engines run on."""

    name = "modelserving"
    kind = "ModelServing"
    watches: tuple[str, ...] = ("Engine",)

    def __init__(self, store: Store, cluster: Cluster, clock: Clock, ids: Ids, target: Target | None = None) -> None:
        self._store = store
        self._cluster = cluster
        self._clock = clock
        self._engines = EngineStore(store)
        self._watch = EngineWatch(self._engines, cluster, clock)
        self._retirement = Retirement(self._engines, cluster, clock)
        self._announce = Announcer(EventRecorder(store, clock))
        placer = Placer(self._engines, cluster, clock, ids, target or Target())
        self._runner = Runner(store, self._engines, placer, self._watch, self._announce)
        self._adopting = asyncio.Lock()
        self._has_adopted = False

    def keys_for(self, obj: Json) -> Iterable[Ref]:
        return [Ref(self.kind, obj["metadata"]["namespace"], obj["spec"]["serving"])]

    async def close(self) -> None:
        await self._watch.stop()
        await self._retirement.stop()

    async def reconcile(self, key: Ref) -> Again | None:
        await self.adopt()
        try:
            serving = self._with_finalizer(self._store.get(key))
        except NotFound:
            self._retire_all(key)
            return None
        self._attend(key)
        world = await self._world(key, serving)
        plan = decide(world, self._clock.now())
        outcome = await self._runner.run(serving, plan)
        self._attend(key)
        if not outcome.is_gone:
            await self._write_status(key, plan, outcome)
        return self._again(plan, outcome)

    async def adopt(self) -> None:
        """Once, before anything else: keep what runs for an Engine object, remove what runs for none.

        `reconcile` does it too; call it at start so that it happens even when no ModelServing is left.
        """
        async with self._adopting:
            if not self._has_adopted:
                await remove_orphans(self._cluster, self._engines.all())
                self._retire_fatherless()
                self._has_adopted = True

    def _retire_fatherless(self) -> None:
        servings = {ref_of(serving) for serving in self._store.list(self.kind).items}
        keys = {key for engine in self._engines.all() for key in self.keys_for(engine)}
        for key in sorted(keys - servings):
            self._retire_all(key)

    def _with_finalizer(self, serving: Json) -> Json:
        meta = serving["metadata"]
        if meta.get("deletionTimestamp") or FINALIZER_SERVING in meta.get("finalizers", ()):
            return serving
        meta["finalizers"] = [*meta.get("finalizers", ()), FINALIZER_SERVING]
        return self._store.update(serving)

    def _retire_all(self, key: Ref) -> None:
        """The serving is gone without our leave (its finalizer was taken off): its engines follow."""
        self._engines.retire(self._engines.of(key), REASON_DELETED)
        self._retirement.ensure(self._engines.of(key))

    def _attend(self, key: Ref) -> None:
        """Every started engine is watched, every retired role replica is on its way out."""
        engines = self._engines.of(key)
        for engine in engines:
            is_started = (engine.get("status") or {}).get("phase") in STARTED_PHASES
            if is_started and engine["spec"].get("placementGroup"):
                self._watch.ensure(engine)
        self._retirement.ensure(engines)

    async def _world(self, key: Ref, serving: Json) -> World:
        nodes = [node.node_id for node in await self._cluster.nodes()]
        kept = [
            found
            for found in self._store.list("ControllerRevision", key.namespace).items
            if found["spec"]["serving"] == key.name
        ]
        return read_world(serving, self._engines.of(key), kept, nodes)

    async def _write_status(self, key: Ref, plan: Plan, outcome: Outcome) -> None:
        try:
            serving = self._store.get(key)
        except NotFound:
            return
        world = replace(await self._world(key, serving), crashes=dict(plan.crashes))
        self._announce.states(serving, self._engines.of(key))
        ignored = ignored_on_ray(serving["spec"], serving["metadata"].get("annotations"))
        notes = Notes(outcome.shortages, ignored, write_crashes(plan.crashes))
        status = status_of(serving, world, notes, rfc3339(self._clock.now()))
        try:
            serving = self._store.get(key)
        except NotFound:
            return
        if status != serving.get("status"):
            self._store.update_status({**serving, "status": status})

    def _again(self, plan: Plan, outcome: Outcome) -> Again | None:
        waits = [plan.again_s] if plan.again_s is not None else []
        if outcome.shortages:
            waits.append(ROOM_RETRY_S)
        return Again(max(0.0, min(waits))) if waits else None

    def __repr__(self) -> str:
        return f"ModelServingController({self._watch!r}, {self._retirement!r})"
