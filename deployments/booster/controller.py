"""The ModelBooster controller: keeps the generated objects as the booster has them."""

from __future__ import annotations

from collections.abc import Iterable

from hekla.deployments.booster.children import Step, step_for
from hekla.deployments.booster.generate import generate
from hekla.deployments.booster.status import status_of
from hekla.platform.api.admission import admit
from hekla.platform.api.meta import Json, Ref, is_owned_by, ref_of
from hekla.platform.base.clock import Clock, rfc3339
from hekla.platform.base.errors import Invalid, NotFound
from hekla.platform.control.events import EventRecorder
from hekla.platform.control.interface import Again
from hekla.platform.store.interface import Store

EVENT_CREATED = "Created"
EVENT_UPDATED = "Updated"
EVENT_REMOVED = "Removed"
EVENT_FAILED = "ChildFailed"

CHILD_KINDS = ("ModelServing", "ModelServer", "ModelRoute")

OBSTACLE_RETRY_S = 10.0
"""A foreign object in a child's place belongs to nobody we watch for: look again whether it is gone."""


class ModelBoosterController:
    """Implements `Controller`. Children go with the booster by the store's cascade."""

    name = "modelbooster"
    kind = "ModelBooster"
    watches: tuple[str, ...] = CHILD_KINDS

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._events = EventRecorder(store, clock)

    def keys_for(self, obj: Json) -> Iterable[Ref]:
        meta = obj["metadata"]
        owners = [owner for owner in meta.get("ownerReferences") or () if owner["kind"] == self.kind]
        return [Ref(self.kind, meta["namespace"], owner["name"]) for owner in owners]

    async def reconcile(self, key: Ref) -> Again | None:
        booster = self._find(key)
        if booster is None or booster["metadata"].get("deletionTimestamp"):
            return None
        try:
            wanted = [admit(child) for child in generate(booster)]
        except Invalid as error:
            # Admission refuses such boosters; one that got in before a rule did says so here.
            self._write_status(key, None, error.message)
            return None
        problems = [self._apply(booster, child) for child in wanted]
        self._remove_others(booster, {ref_of(child) for child in wanted})
        problem = "; ".join(text for text in problems if text)
        self._write_status(key, self._find(ref_of(wanted[0])), problem)
        return Again(OBSTACLE_RETRY_S) if problem else None

    def _find(self, ref: Ref) -> Json | None:
        try:
            return self._store.get(ref)
        except NotFound:
            return None

    def _apply(self, booster: Json, child: Json) -> str:
        """Make the child so; returns what stands in the way, or nothing."""
        ref = ref_of(child)
        step = step_for(child, self._find(ref), booster["metadata"]["uid"])
        match step.action:
            case "create":
                self._store.create(step.object)
                self._events.record(booster, "Normal", EVENT_CREATED, f"{ref} is created")
            case "update":
                self._store.update(step.object)
                self._events.record(booster, "Normal", EVENT_UPDATED, f"{ref} is brought to the booster's revision")
            case "replace":
                self._replace(booster, step, ref)
            case "refuse":
                self._events.record(booster, "Warning", EVENT_FAILED, step.message)
                return step.message
            case "wait" | "keep":
                pass
        return ""

    def _replace(self, booster: Json, step: Step, ref: Ref) -> None:
        with self._store.transaction():
            self._store.delete(ref)
            self._store.create(step.object)
        self._events.record(booster, "Normal", EVENT_UPDATED, f"{ref} is made anew: {step.message}")

    def _remove_others(self, booster: Json, wanted: set[Ref]) -> None:
        """What an earlier backend name left behind."""
        meta = booster["metadata"]
        for kind in CHILD_KINDS:
            for found in self._store.list(kind, meta["namespace"]).items:
                ref = ref_of(found)
                is_leaving = found["metadata"].get("deletionTimestamp")
                if is_owned_by(found, meta["uid"]) and ref not in wanted and not is_leaving:
                    self._store.delete(ref, found["metadata"]["uid"])
                    self._events.record(booster, "Normal", EVENT_REMOVED, f"{ref} is no longer wanted")

    def _write_status(self, key: Ref, serving: Json | None, problem: str) -> None:
        booster = self._find(key)
        if booster is None:
            return
        status = status_of(booster, serving, problem, rfc3339(self._clock.now()))
        if status != booster.get("status"):
            self._store.update_status({**booster, "status": status})

    def __repr__(self) -> str:
        return "ModelBoosterController()"
