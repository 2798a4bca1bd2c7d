"""Carries out a plan through the store and the cluster, and says what came of it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from hekla.deployments.naming import FINALIZER_SERVING, LABEL_REVISION, revision_name
from hekla.deployments.serving.announcements import Announcer
from hekla.deployments.serving.engine_store import EngineStore
from hekla.deployments.serving.engine_watch import EngineWatch
from hekla.deployments.serving.instructions import (
    CreateUnits,
    DropFinalizer,
    DropRevision,
    KeepRevision,
    PlaceUnits,
    Plan,
    Relabel,
    RestartEngine,
    RetireUnit,
)
from hekla.deployments.serving.model import UnitId
from hekla.deployments.serving.objects import engines_of_unit, revision_object, role_template_of
from hekla.deployments.serving.placing import Placer
from hekla.platform.api.meta import Json, Ref, ref_of
from hekla.platform.base.errors import AlreadyExists, NotFound
from hekla.platform.store.interface import Store

logger = logging.getLogger(__name__)


@dataclass
class Outcome:
    shortages: list[str] = field(default_factory=list)
    is_gone: bool = False
    """The serving has been let go: there is no status to write."""


class Runner:
    """Runs the instructions of one plan at a time per serving; each is safe to repeat."""

    def __init__(
        self, store: Store, engines: EngineStore, placer: Placer, watch: EngineWatch, announcer: Announcer
    ) -> None:
        self._store = store
        self._engines = engines
        self._placer = placer
        self._watch = watch
        self._announce = announcer

    async def run(self, serving: Json, plan: Plan) -> Outcome:
        outcome = Outcome()
        placing: list[PlaceUnits] = []
        for step in plan.instructions:
            match step:
                case PlaceUnits():
                    placing.append(step)
                case DropFinalizer():
                    self._let_go(serving)
                    outcome.is_gone = True
                case RestartEngine():
                    await self._restart(serving, step)
                case _:
                    self._write(serving, step)
        for shortage in await asyncio.gather(*(self._place(serving, step) for step in placing)):
            if shortage and shortage not in outcome.shortages:
                outcome.shortages.append(shortage)
        if not outcome.is_gone:
            self._announce.unschedulable(serving, "; ".join(outcome.shortages))
        return outcome

    def _write(self, serving: Json, step: KeepRevision | DropRevision | CreateUnits | RetireUnit | Relabel) -> None:
        match step:
            case KeepRevision():
                self._create_if_absent(revision_object(serving, step.revision))
            case DropRevision():
                self._drop_revision(serving, step.revision)
            case CreateUnits():
                self._create_units(serving, step)
            case RetireUnit():
                self._retire(serving, step)
            case Relabel():
                for engine in self._owned(serving, step.uids):
                    self._engines.set_label(engine, LABEL_REVISION, step.revision)

    def _owned(self, serving: Json, uids: tuple[str, ...]) -> list[Json]:
        return [engine for engine in self._engines.of(ref_of(serving)) if engine["metadata"]["uid"] in uids]

    def _unit(self, serving: Json, unit: UnitId) -> list[Json]:
        def is_in(spec: Json) -> bool:
            return (spec["group"], spec["role"], spec["roleReplica"]) == (unit.group, unit.role, unit.replica)

        found = [engine for engine in self._engines.of(ref_of(serving)) if is_in(engine["spec"])]
        return sorted(found, key=lambda engine: int(engine["spec"]["index"]))

    def _create_if_absent(self, obj: Json) -> Json | None:
        try:
            return self._store.create(obj)
        except AlreadyExists:
            return None

    def _drop_revision(self, serving: Json, revision: str) -> None:
        meta = serving["metadata"]
        try:
            self._store.delete(Ref("ControllerRevision", meta["namespace"], revision_name(meta["name"], revision)))
        except NotFound:
            pass

    def _create_units(self, serving: Json, step: CreateUnits) -> None:
        meta = serving["metadata"]
        kept = [
            found
            for found in self._store.list("ControllerRevision", meta["namespace"]).items
            if found["spec"]["serving"] == meta["name"]
        ]
        with self._store.transaction():
            for unit in step.units:
                role = role_template_of(serving, kept, unit)
                for engine in engines_of_unit(serving, role, unit):
                    if (created := self._create_if_absent(engine.object)) is not None:
                        self._store.update_status({**created, "status": engine.status})
        for unit in step.units:
            self._announce.creating(serving, unit.id)

    def _retire(self, serving: Json, step: RetireUnit) -> None:
        engines = self._owned(serving, step.uids)
        self._announce.deleting(serving, step.id, step.reason)
        self._engines.retire(engines, step.reason)

    async def _restart(self, serving: Json, step: RestartEngine) -> None:
        for engine in self._owned(serving, (step.uid,)):
            self._announce.restarting(serving, step.name, (engine.get("status") or {}).get("message", ""))
            await self._placer.restart(engine)

    async def _place(self, serving: Json, step: PlaceUnits) -> str:
        units = [unit for unit_id in step.units if (unit := self._unit(serving, unit_id))]
        shortage = await self._placer.place(units) if units else ""
        for engine in (engine for unit in units for engine in unit):
            present = self._engines.again(engine)
            if present is not None and present["spec"].get("placementGroup"):
                self._watch.ensure(present)
        return shortage

    def _let_go(self, serving: Json) -> None:
        try:
            found = self._store.get(ref_of(serving))
        except NotFound:
            return
        meta = found["metadata"]
        meta["finalizers"] = [name for name in meta.get("finalizers", []) if name != FINALIZER_SERVING]
        self._store.update(found)
        self._announce.forget(meta["uid"])
