"""Engine status: what a report, a death or a step of the runner makes of it. Pure."""

from __future__ import annotations

from hekla.platform.api.meta import Json

_FROM_REPORT = (
    "message", "progress", "address", "nodeName", "pid", "supervisorPid", "models", "maxModelLen", "kvEvents",
    "adapters", "adapterSlots",
    "kvReplay", "bootstrapPort",
)  # fmt: skip

_FINAL = frozenset({"Stopped", "Failed"})


def started(old: Json, now: str, *, restarts: int = 0) -> Json:
    """A fresh start; when it answers a failure, the failure stays on record until the engine is ready again."""
    status: Json = {"phase": "Starting", "message": "", "restarts": restarts, "startedAt": now}
    if old.get("failedAt"):
        status["failedAt"] = old["failedAt"]
    return status


def pending(message: str) -> Json:
    return {"phase": "Pending", "message": message}


def reported(old: Json, report: Json, now: str) -> Json:
    """The status after a supervisor's report. An engine that drains does not become ready again."""
    phase = report["phase"]
    if old.get("phase") == "Draining" and phase not in _FINAL:
        phase = "Draining"
    status = {**old, **{key: report[key] for key in _FROM_REPORT if key in report}, "phase": phase}
    if phase == "Ready":
        status.pop("failedAt", None)
        status["readyAt"] = old.get("readyAt") if old.get("phase") == "Ready" and old.get("readyAt") else now
    if phase == "Failed":
        status.setdefault("failedAt", now)
    return status


def failed(old: Json, reason: str, now: str) -> Json:
    """The engine's actor is gone, or could not start."""
    status = {**old, "phase": "Failed", "message": reason, "pid": 0, "supervisorPid": 0, "address": "", "progress": 0.0}
    status.pop("adapters", None)
    status.setdefault("failedAt", now)
    return status


def draining(old: Json, reason: str) -> Json:
    return {**old, "phase": "Draining", "message": reason}
