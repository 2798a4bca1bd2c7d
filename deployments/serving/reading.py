"""From stored objects to the nouns of `model`. Pure; the objects have been admitted, so their fields have defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hekla.deployments.naming import (
    ANNOTATION_DELETION_COST,
    ANNOTATION_RETIRED,
    LABEL_REVISION,
    LABEL_ROLE_HASH,
)
from hekla.deployments.revision import revision_of, role_hash
from hekla.deployments.serving.model import Crash, Engine, Group, Role, Serving, Unit, UnitId, World, revision_roles
from hekla.platform.api.meta import Json
from hekla.platform.api.values import resolve_int_or_percent
from hekla.platform.base.clock import parse_rfc3339


def read_serving(obj: Json) -> Serving:
    meta, spec = obj["metadata"], obj["spec"]
    replicas = int(spec.get("replicas", 1))
    strategy = spec.get("rolloutStrategy") or {}
    rolling = strategy.get("rollingUpdateConfiguration") or {}
    template = spec["template"]
    return Serving(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        generation=int(meta.get("generation", 1)),
        replicas=replicas,
        roles=tuple(read_role(role) for role in revision_roles(obj)),
        revision=revision_of(revision_roles(obj)),
        rolls_by_role=strategy.get("type") == "RoleRollingUpdate",
        max_unavailable=_at_least_one(rolling.get("maxUnavailable"), replicas),
        partition=_share(rolling.get("partition"), replicas),
        recovery=spec.get("recoveryPolicy") or "RoleRecreate",
        grace_s=float(template.get("restartGracePeriodSeconds") or 0),
        min_role_replicas=(template.get("gangPolicy") or {}).get("minRoleReplicas") or {},
        is_deleting=bool(meta.get("deletionTimestamp")),
    )


def read_role(role: Json, current: Role | None = None) -> Role:
    """A role of some revision; how many there are to be is what the `current` spec says, when it has the role."""
    replicas = current.replicas if current else int(role.get("replicas", 1))
    return Role(
        name=role["name"],
        replicas=replicas,
        worker_replicas=int(role.get("workerReplicas") or 0),
        hash=role_hash(role),
        max_unavailable=current.max_unavailable if current else _at_least_one(role.get("maxUnavailable"), replicas),
        partition=current.partition if current else _share(role.get("partition"), replicas),
    )


def _at_least_one(value: int | str | None, total: int) -> int:
    """Percentages round down; zero would stop every rollout."""
    return max(1, resolve_int_or_percent(1 if value is None else value, total, round_up=False))


def _share(value: int | str | None, total: int) -> int:
    return resolve_int_or_percent(value or 0, total, round_up=True)


def read_engine_object(obj: Json) -> Engine:
    meta, spec = obj["metadata"], obj["spec"]
    status, labels, marks = obj.get("status") or {}, meta.get("labels") or {}, meta.get("annotations") or {}
    failed_at = status.get("failedAt")
    return Engine(
        name=meta["name"],
        uid=meta["uid"],
        unit=UnitId(spec["group"], spec["role"], spec["roleReplica"]),
        index=spec.get("index", 0),
        revision=labels.get(LABEL_REVISION, ""),
        role_hash=labels.get(LABEL_ROLE_HASH, ""),
        phase=status.get("phase", "Pending"),
        node=spec.get("node", ""),
        failed_at=parse_rfc3339(failed_at) if failed_at else None,
        is_deleting=bool(meta.get("deletionTimestamp")),
        is_retired=ANNOTATION_RETIRED in marks,
        deletion_cost=_cost(marks.get(ANNOTATION_DELETION_COST, "")),
        message=status.get("message", ""),
    )


def _cost(text: str) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return 0  # as Kubernetes does with a value it can't read


def read_world(obj: Json, engines: Iterable[Json], revisions: Iterable[Json], alive_nodes: Iterable[str]) -> World:
    serving = read_serving(obj)
    status = obj.get("status") or {}
    return World(
        serving=serving,
        engines=tuple(read_engine_object(engine) for engine in engines),
        current_revision=status.get("currentRevision") or serving.revision,
        revisions={
            kept["spec"]["revision"]: tuple(
                read_role(role, serving.role(role["name"])) for role in kept["spec"]["roles"]
            )
            for kept in revisions
        },
        crashes=read_crashes(status.get("crashes") or {}),
        alive_nodes=frozenset(alive_nodes),
    )


def read_crashes(status: Mapping[str, Json]) -> dict[str, Crash]:
    return {key: Crash(int(crash["failures"]), float(crash["last"])) for key, crash in status.items()}


def write_crashes(crashes: Iterable[tuple[str, Crash]]) -> Json:
    """The status field `crashes`: durable, so that a restart of the controller does not forgive a crash loop."""
    return {key: {"failures": crash.failures, "last": crash.last_s} for key, crash in crashes}


def groups_of(world: World) -> tuple[Group, ...]:
    """The groups there are, by ordinal; each with its units by role and ordinal."""
    members: dict[UnitId, list[Engine]] = {}
    for engine in world.engines:
        members.setdefault(engine.unit, []).append(engine)
    units: dict[int, list[Unit]] = {}
    for unit_id in sorted(members):
        engines = tuple(sorted(members[unit_id], key=lambda engine: engine.index))
        units.setdefault(unit_id.group, []).append(Unit(unit_id, engines, _unit_size(world, engines)))
    return tuple(Group(ordinal, tuple(units[ordinal])) for ordinal in sorted(units))


def _unit_size(world: World, engines: tuple[Engine, ...]) -> int:
    known = world.revisions.get(engines[0].revision, ())
    sizes = [role.unit_size for role in known if role.hash == engines[0].role_hash]
    return sizes[0] if sizes else len(engines)
