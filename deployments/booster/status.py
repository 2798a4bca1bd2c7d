"""What a ModelBooster's status says. Pure."""

from __future__ import annotations

from hekla.platform.api.meta import Condition, Json, condition_status, set_condition

CONDITION_INITIALIZED = "Initialized"
CONDITION_ACTIVE = "Active"
CONDITION_FAILED = "Failed"

REASON_CREATING = "ModelCreating"
REASON_PROCESSING = "ModelProcessing"
REASON_AVAILABLE = "ModelAvailable"
REASON_ABNORMAL = "ModelAbnormal"


def status_of(booster: Json, serving: Json | None, problem: str, now: str) -> Json:
    """`serving` is the generated ModelServing as stored; `problem` why a child could not be made, or nothing."""
    is_current = serving is not None and _observed(serving) == serving["metadata"].get("generation")
    is_active = serving is not None and is_current and not problem and condition_status(serving, "Available") == "True"
    trouble = problem or _crash_message(serving)
    active = REASON_AVAILABLE if is_active else REASON_PROCESSING
    conditions: list[Json] = list((booster.get("status") or {}).get("conditions") or ())
    generation = booster["metadata"].get("generation", 1)
    for kind, holds, reason, message in (
        (CONDITION_INITIALIZED, True, REASON_CREATING, "its ModelServing, ModelServer and ModelRoute are looked after"),
        (CONDITION_ACTIVE, is_active, active, problem or _progress_message(serving)),
        (CONDITION_FAILED, bool(trouble), REASON_ABNORMAL if trouble else active, trouble),
    ):
        condition = Condition(
            type=kind,
            status="True" if holds else "False",
            reason=reason,
            message=message,
            observed_generation=generation,
        )
        conditions = set_condition(conditions, condition, now)
    return {"observedGeneration": generation, "conditions": conditions}


def _observed(serving: Json) -> object:
    return (serving.get("status") or {}).get("observedGeneration")


def _message(serving: Json | None, kind: str, wanted: str) -> str:
    for condition in ((serving or {}).get("status") or {}).get("conditions") or ():
        if condition["type"] == kind and condition["status"] == wanted:
            return str(condition.get("message", ""))
    return ""


def _crash_message(serving: Json | None) -> str:
    return _message(serving, "CrashLooping", "True")


def _progress_message(serving: Json | None) -> str:
    """No room explains more than what waits for it."""
    if serving is None:
        return "its ModelServing does not exist yet"
    available = _message(serving, "Available", "True") or _message(serving, "Available", "False")
    return _message(serving, "Schedulable", "False") or available or "its ModelServing has not been looked at yet"
