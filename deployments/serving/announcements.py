"""Events of a ModelServing: what happened to its role replicas and engines, and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hekla.deployments.serving.model import UnitId
from hekla.platform.api.meta import Json
from hekla.platform.control.events import EventRecorder

EVENT_ROLE_CREATING = "RoleCreating"
EVENT_ROLE_RUNNING = "RoleRunning"
EVENT_ROLE_DELETING = "RoleDeleting"
EVENT_UNSCHEDULABLE = "FailedScheduling"
EVENT_ENGINE_FAILED = "EngineFailed"
EVENT_ENGINE_RESTARTING = "EngineRestarting"


@dataclass
class _Said:
    running: set[str] = field(default_factory=set)
    failed: set[tuple[str, str]] = field(default_factory=set)
    shortage: str = ""


class Announcer:
    """Records events; remembers what it said about a present state, so that a state is announced once."""

    def __init__(self, events: EventRecorder) -> None:
        self._events = events
        self._said: dict[str, _Said] = {}

    def creating(self, serving: Json, unit: UnitId) -> None:
        self._events.record(serving, "Normal", EVENT_ROLE_CREATING, f"role replica {unit} is created")

    def deleting(self, serving: Json, unit: UnitId, reason: str) -> None:
        self._events.record(serving, "Normal", EVENT_ROLE_DELETING, f"role replica {unit} goes: {reason}")

    def restarting(self, serving: Json, engine: str, why: str) -> None:
        self._events.record(serving, "Normal", EVENT_ENGINE_RESTARTING, f"{engine} is restarted in place: {why}")

    def unschedulable(self, serving: Json, shortage: str) -> None:
        """Said once for each different shortage, not at each try."""
        said = self._about(serving)
        if shortage and said.shortage != shortage:
            self._events.record(serving, "Warning", EVENT_UNSCHEDULABLE, shortage)
        said.shortage = shortage

    def states(self, serving: Json, engines: Iterable[Json]) -> None:
        """Announce engines that have failed and entries that run, as of now; `engines` are all of the serving."""
        said, alive = self._about(serving), set()
        for engine in engines:
            uid, phase = engine["metadata"]["uid"], (engine.get("status") or {}).get("phase")
            alive.add(uid)
            if phase == "Failed":
                self._failure(serving, engine, said)
            elif phase == "Ready" and uid not in said.running and engine["spec"]["index"] == 0:
                said.running.add(uid)
                unit = UnitId(engine["spec"]["group"], engine["spec"]["role"], engine["spec"]["roleReplica"])
                self._events.record(serving, "Normal", EVENT_ROLE_RUNNING, f"role replica {unit} runs")
        said.running &= alive
        said.failed = {(uid, what) for uid, what in said.failed if uid in alive}

    def forget(self, serving_uid: str) -> None:
        self._said.pop(serving_uid, None)

    def _about(self, serving: Json) -> _Said:
        return self._said.setdefault(serving["metadata"]["uid"], _Said())

    def _failure(self, serving: Json, engine: Json, said: _Said) -> None:
        uid, status = engine["metadata"]["uid"], engine["status"]
        once = (uid, f"{status.get('restarts', 0)} {status.get('failedAt')}")
        said.running.discard(uid)
        if once not in said.failed:
            said.failed.add(once)
            message = f"{engine['metadata']['name']}: {status.get('message') or 'no reason given'}"
            self._events.record(serving, "Warning", EVENT_ENGINE_FAILED, message)
