"""A ModelServing whose plans happen in memory: no store, no cluster, no clock but `now`.

For tests and simulation: the real decision code, with a world that obeys at once and fails on demand.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

from hekla.deployments.engine_status import draining, failed, started
from hekla.deployments.naming import ANNOTATION_RETIRED, LABEL_REVISION
from hekla.deployments.serving.decide import decide
from hekla.deployments.serving.instructions import (
    CreateUnits,
    DropFinalizer,
    DropRevision,
    Instruction,
    KeepRevision,
    PlaceUnits,
    Plan,
    Relabel,
    RestartEngine,
    RetireUnit,
)
from hekla.deployments.serving.model import World
from hekla.deployments.serving.objects import engines_of_unit, revision_object, role_template_of
from hekla.deployments.serving.reading import groups_of, read_world, write_crashes
from hekla.deployments.serving.status import Notes, status_of
from hekla.deployments.serving.wanted import is_available
from hekla.platform.api.meta import Json
from hekla.platform.base.clock import rfc3339

NODE = "node-1"
STEPS_MAX = 100
"""Plans in a row without the world changing: more means that two rules undo each other."""


class Rehearsal:
    """Give it an admitted ModelServing; `run` decides and obeys until there is nothing more to do."""

    def __init__(self, serving: Json, now: float = 1_750_000_000.0) -> None:
        self.serving = copy.deepcopy(serving)
        self.now = now
        self.engines: dict[str, Json] = {}
        self.revisions: dict[str, Json] = {}
        self.has_room = True
        self.is_let_go = False
        self._made = 0

    def world(self) -> World:
        return read_world(self.serving, self.engines.values(), self.revisions.values(), [NODE])

    def plan(self) -> Plan:
        return decide(self.world(), self.now)

    def step(self) -> tuple[Instruction, ...]:
        """One decision, obeyed; returns what it was."""
        plan = self.plan()
        for instruction in plan.instructions:
            self._obey(instruction)
        notes = Notes([], [], write_crashes(plan.crashes))
        self.serving["status"] = status_of(self.serving, self.world(), notes, rfc3339(self.now))
        return plan.instructions

    def run(self) -> list[Instruction]:
        """Steps until a plan has no effect: placements without room, or nothing at all."""
        done: list[Instruction] = []
        for _ in range(STEPS_MAX):
            steps = self.step()
            done += steps
            if all(isinstance(step, PlaceUnits) and not self.has_room for step in steps):
                return done
        raise AssertionError(f"no rest after {STEPS_MAX} plans; the last: {steps}")

    def settle(self) -> None:
        """Run, let leaving engines leave and started ones become ready, until all is quiet."""
        for _ in range(STEPS_MAX):
            self.run()
            before = self.snapshot()
            self.finish_leaving()
            self.become_ready()
            self.run()
            if self.snapshot() == before:
                return
        raise AssertionError("the serving does not settle")

    def snapshot(self) -> dict[str, tuple[str, str, bool]]:
        """uid, phase and whether it leaves, by engine name."""
        return {
            name: (obj["metadata"]["uid"], obj["status"]["phase"], bool(obj["metadata"].get("deletionTimestamp")))
            for name, obj in self.engines.items()
        }

    @property
    def uids(self) -> dict[str, str]:
        return {name: obj["metadata"]["uid"] for name, obj in self.engines.items()}

    def available(self) -> int:
        world = self.world()
        return sum(is_available(world, group) for group in groups_of(world))

    # What the world does.

    def become_ready(self, names: Iterable[str] | None = None) -> None:
        for name in list(self.engines) if names is None else names:
            status = self.engines[name]["status"]
            if status["phase"] == "Starting":
                self.engines[name]["status"] = {
                    key: value for key, value in {**status, "phase": "Ready"}.items() if key != "failedAt"
                }

    def fail(self, name: str, message: str = "exit code 1") -> None:
        engine = self.engines[name]
        engine["status"] = failed(engine["status"], message, rfc3339(self.now))

    def delete_from_outside(self, name: str) -> None:
        self.engines[name]["metadata"]["deletionTimestamp"] = rfc3339(self.now)

    def finish_leaving(self) -> None:
        """What hekla retired is drained, stopped and gone."""
        for name, engine in list(self.engines.items()):
            meta = engine["metadata"]
            if meta.get("deletionTimestamp") and ANNOTATION_RETIRED in meta["annotations"]:
                del self.engines[name]

    def update(self, serving: Json) -> None:
        """The object is applied anew: spec replaced, status kept, generation one higher."""
        self.serving["spec"] = copy.deepcopy(serving["spec"])
        self.serving["metadata"]["generation"] += 1

    # What the runner would do.

    def _obey(self, step: Instruction) -> None:
        match step:
            case KeepRevision():
                self.revisions[step.revision] = revision_object(self.serving, step.revision)
            case DropRevision():
                del self.revisions[step.revision]
            case CreateUnits():
                self._create(step)
            case PlaceUnits():
                self._place(step)
            case RetireUnit():
                self._retire(step)
            case RestartEngine():
                engine = self._by_uid(step.uid)
                engine["status"] = started(
                    engine["status"], rfc3339(self.now), restarts=engine["status"]["restarts"] + 1
                )
            case Relabel():
                for uid in step.uids:
                    self._by_uid(uid)["metadata"]["labels"][LABEL_REVISION] = step.revision
            case DropFinalizer():
                self.is_let_go = True

    def _by_uid(self, uid: str) -> Json:
        (found,) = [engine for engine in self.engines.values() if engine["metadata"]["uid"] == uid]
        return found

    def _create(self, step: CreateUnits) -> None:
        for unit in step.units:
            role = role_template_of(self.serving, list(self.revisions.values()), unit)
            for made in engines_of_unit(self.serving, role, unit):
                name = made.object["metadata"]["name"]
                assert name not in self.engines, f"{name} is created while it exists"
                self._made += 1
                made.object["metadata"]["uid"] = f"uid-{self._made}"
                self.engines[name] = {**made.object, "status": made.status}

    def _place(self, step: PlaceUnits) -> None:
        wanted = {(unit.group, unit.role, unit.replica) for unit in step.units}
        for engine in self.engines.values():
            spec = engine["spec"]
            if self.has_room and (spec["group"], spec["role"], spec["roleReplica"]) in wanted:
                spec |= {"node": NODE, "placementGroup": "some"}
                engine["status"] = started(engine["status"], rfc3339(self.now))

    def _retire(self, step: RetireUnit) -> None:
        for uid in step.uids:
            engine = self._by_uid(uid)
            engine["metadata"]["annotations"][ANNOTATION_RETIRED] = step.reason
            engine["metadata"].setdefault("deletionTimestamp", rfc3339(self.now))
            engine["status"] = draining(engine["status"], step.reason)

    def __repr__(self) -> str:
        return f"Rehearsal({self.snapshot()})"
