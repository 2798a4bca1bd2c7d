"""What a ModelServing's status says about the world, and what is worth an event. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hekla.deployments.naming import LABEL_ENTRY, LABEL_ROLE, LABEL_ROLE_ID, LABEL_SERVING
from hekla.deployments.serving.model import Group, Serving, Unit, World
from hekla.deployments.serving.reading import groups_of
from hekla.deployments.serving.wanted import group_roles, is_available, is_protected, is_updated
from hekla.platform.api.meta import Condition, Json, set_condition

CONDITION_AVAILABLE = "Available"
CONDITION_PROGRESSING = "Progressing"
CONDITION_UPDATING = "UpdateInProgress"
CONDITION_SCHEDULABLE = "Schedulable"
CONDITION_CRASHING = "CrashLooping"
CONDITION_IGNORED = "IgnoredOnRay"

REASON_ALL_READY = "AllGroupsReady"
REASON_PROGRESSING = "GroupProgressing"
REASON_UPDATING = "GroupsUpdating"
REASON_SETTLED = "Settled"
REASON_PLACED = "Placed"
REASON_UNSCHEDULABLE = "Unschedulable"
REASON_BACK_OFF = "BackOff"
REASON_STABLE = "NoRecentFailures"
REASON_FIELDS_IGNORED = "FieldsWithoutMeaning"
REASON_NOTHING_IGNORED = "NothingIgnored"
REASON_DELETING = "Deleting"

IGNORED_PATHS_MAX = 20
"""Paths spelled out in the condition's message; the rest are counted."""
CRASH_LOOP_FAILURES_MIN = 2
"""One failure is an accident."""


@dataclass(frozen=True)
class Notes:
    """What acting on the last plan taught."""

    shortages: Sequence[str] = ()
    """Why pending role replicas could not be placed."""
    ignored: Sequence[str] = ()
    """Paths of fields without meaning on plain Ray."""
    crashes: Json = field(default_factory=dict)
    """The crash records to store."""


def status_of(obj: Json, world: World, notes: Notes, now: str) -> Json:
    """The whole new status; `now` (RFC 3339) only dates conditions that changed."""
    serving, groups = world.serving, groups_of(world)
    live = [group for group in groups if not group.is_deleting]
    available = [group for group in live if is_available(world, group)]
    updated = [group for group in live if is_updated(world, group)]
    is_complete = len(live) == serving.replicas and len(updated) == len(live)
    current = serving.revision if is_complete else world.current_revision
    at_current = [
        group for group in live if (current == serving.revision and group in updated) or _is_at(group, current)
    ]
    status: Json = {
        "observedGeneration": serving.generation,
        "replicas": len(live),
        "currentReplicas": len(at_current),
        "updatedReplicas": len(updated),
        "availableReplicas": len(available),
        "currentRevision": current,
        "updateRevision": serving.revision,
        "labelSelector": scale_selector(serving),
        "roles": [role_summary(world, live, role.name) for role in serving.roles],
    }
    if notes.crashes:
        status["crashes"] = notes.crashes
    conditions: list[Json] = list((obj.get("status") or {}).get("conditions") or ())
    for condition in _conditions(world, live, available, notes):
        stamped = condition.model_copy(update={"observed_generation": serving.generation})
        conditions = set_condition(conditions, stamped, now)
    return {**status, "conditions": conditions}


def _is_at(group: Group, revision: str) -> bool:
    return all(unit.revision == revision for unit in group.live)


def scale_selector(serving: Serving) -> str:
    """Selects one engine a group: the entry of replica 0 of the first role, so that averages over it are right."""
    first = serving.roles[0].name if serving.roles else ""
    wanted = {LABEL_SERVING: serving.name, LABEL_ENTRY: "true", LABEL_ROLE: first, LABEL_ROLE_ID: f"{first}-0"}
    return ",".join(f"{key}={value}" for key, value in wanted.items())


def role_summary(world: World, live: list[Group], role: str) -> Json:
    """Role replicas of all groups together."""
    units = [unit for group in live for unit in group.live if unit.id.role == role]
    roles = [spec for group in live for spec in group_roles(world, group, group.ordinal) if spec.name == role]
    return {
        "name": role,
        "desiredReplicas": sum(spec.replicas for spec in roles),
        "replicas": len(units),
        "readyReplicas": sum(unit.is_running for unit in units),
    }


def _conditions(world: World, live: list[Group], available: list[Group], notes: Notes) -> list[Condition]:
    serving = world.serving
    outdated = [
        g for g in live if not is_protected(world, g.ordinal) and not is_updated(world, g) and _may_roll(world, g)
    ]
    is_ready = len(available) == serving.replicas == len(live) and not outdated and not serving.is_deleting
    count = f"{len(available)} of {serving.replicas} groups available"
    waiting = _waiting(live)
    reason = REASON_DELETING if serving.is_deleting else REASON_ALL_READY if is_ready else REASON_PROGRESSING
    rolling = f"{len(outdated)} of {len(live)} groups are to be replaced" if outdated else "no group is outdated"
    return [
        _condition(CONDITION_AVAILABLE, is_ready, reason, "; ".join(text for text in (count, waiting) if text)),
        _condition(
            CONDITION_PROGRESSING,
            not is_ready,
            REASON_SETTLED if is_ready else REASON_PROGRESSING,
            waiting or count,
        ),
        _condition(CONDITION_UPDATING, bool(outdated), REASON_UPDATING if outdated else REASON_SETTLED, rolling),
        _schedulable(notes),
        _crashing(world, live),
        _ignored(notes),
    ]


def _may_roll(world: World, group: Group) -> bool:
    """False when all that is old in the group is held back by role partitions."""
    if not world.serving.rolls_by_role:
        return True
    partitions = {role.name: role.partition for role in world.serving.roles}
    hashes = {role.name: role.hash for role in world.serving.roles}
    return any(
        unit.role_hash != hashes.get(unit.id.role) and unit.id.replica >= partitions.get(unit.id.role, 0)
        for unit in group.live
    )


def _condition(kind: str, is_true: bool, reason: str, message: str) -> Condition:
    return Condition(type=kind, status="True" if is_true else "False", reason=reason, message=message)


def _waiting(live: list[Group]) -> str:
    """What the first engines that are not ready say."""
    words = [
        f"{engine.name} {engine.phase}" + (f": {engine.message}" if engine.message else "")
        for group in live
        for unit in group.live
        for engine in unit.engines
        if engine.phase != "Ready"
    ]
    more = f" and {len(words) - 3} more" if len(words) > 3 else ""
    return "; ".join(words[:3]) + more


def _schedulable(notes: Notes) -> Condition:
    if notes.shortages:
        return _condition(CONDITION_SCHEDULABLE, False, REASON_UNSCHEDULABLE, "; ".join(notes.shortages))
    return _condition(CONDITION_SCHEDULABLE, True, REASON_PLACED, "nothing waits for room")


def _crashing(world: World, live: list[Group]) -> Condition:
    looping = {key: crash for key, crash in world.crashes.items() if crash.failures >= CRASH_LOOP_FAILURES_MIN}
    unwell = [unit for group in live for unit in group.live if not unit.is_running and _key_of(unit, looping)]
    if not unwell:
        return _condition(CONDITION_CRASHING, False, REASON_STABLE, "no engine fails again and again")
    words = [
        f"{unit.id} failed {looping[_key_of(unit, looping)].failures} times: {_last_word(unit)}" for unit in unwell
    ]
    return _condition(CONDITION_CRASHING, True, REASON_BACK_OFF, "; ".join(words[:3]))


def _key_of(unit: Unit, looping: object) -> str:
    keys = (str(unit.id), str(unit.id.group))
    return next((key for key in keys if isinstance(looping, dict) and key in looping), "")


def _last_word(unit: Unit) -> str:
    return next((engine.message for engine in unit.engines if engine.message), "no message")


def _ignored(notes: Notes) -> Condition:
    if not notes.ignored:
        return _condition(CONDITION_IGNORED, False, REASON_NOTHING_IGNORED, "every field has a meaning here")
    shown = ", ".join(notes.ignored[:IGNORED_PATHS_MAX])
    more = len(notes.ignored) - IGNORED_PATHS_MAX
    tail = f" and {more} more" if more > 0 else ""
    return _condition(CONDITION_IGNORED, True, REASON_FIELDS_IGNORED, f"without a meaning on plain Ray: {shown}{tail}")
