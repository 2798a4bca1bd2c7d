"""The objects a ModelServing owns: engines and kept revisions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hekla.deployments.engine_reading import Place, read_engine
from hekla.deployments.engine_status import pending
from hekla.deployments.naming import (
    FINALIZER_ENGINE,
    LABEL_ENTRY,
    LABEL_REVISION,
    LABEL_ROLE_HASH,
    LABEL_SERVING,
    engine_labels,
    engine_name,
    replica_name,
    revision_name,
)
from hekla.deployments.revision import role_hash
from hekla.deployments.serving.instructions import NewUnit
from hekla.deployments.serving.model import UnitId, revision_roles
from hekla.platform.api.meta import Json, owner_reference

HEKLA_API = "hekla.io/v1alpha1"


@dataclass(frozen=True)
class EngineObject:
    """An Engine to create, and the status it starts with (stores keep status apart)."""

    object: Json
    status: Json


def unit_name(serving: str, unit: UnitId) -> str:
    return replica_name(serving, unit.group, unit.role, unit.replica)


def role_template_of(serving: Json, revisions: Sequence[Json], unit: NewUnit) -> Json:
    """The role as the unit's revision has it; the spec's own when that revision is not kept."""
    kept = [list(found["spec"]["roles"]) for found in revisions if found["spec"]["revision"] == unit.revision]
    roles = [role for roles in [*kept, revision_roles(serving)] for role in roles if role["name"] == unit.id.role]
    template: Json = roles[0]
    return template


def engines_of_unit(serving: Json, role: Json, unit: NewUnit) -> list[EngineObject]:
    """The entry and its workers, as objects that do not exist yet."""
    size = 1 + int(role.get("workerReplicas") or 0)
    return [_engine(serving, role, unit, index, size) for index in range(size)]


def _engine(serving: Json, role: Json, unit: NewUnit, index: int, size: int) -> EngineObject:
    meta = serving["metadata"]
    template = role["entryTemplate"] if index == 0 else role["workerTemplate"]
    name = engine_name(unit_name(meta["name"], unit.id), index)
    place = Place(meta["namespace"], name, unit.id.role, size, index)
    reading = read_engine(template, place)
    return EngineObject(
        {
            "apiVersion": HEKLA_API,
            "kind": "Engine",
            "metadata": {
                "name": name,
                "namespace": meta["namespace"],
                "labels": _labels(meta["name"], template, role, unit, index),
                "annotations": dict((template.get("metadata") or {}).get("annotations") or {}),
                "finalizers": [FINALIZER_ENGINE],
                "ownerReferences": [owner_reference(serving)],
            },
            "spec": {
                "serving": meta["name"],
                "group": unit.id.group,
                "role": unit.id.role,
                "roleReplica": unit.id.replica,
                "index": index,
                "revision": unit.revision,
                "launch": reading.launch.model_dump(by_alias=True),
                "resources": dict(reading.resources),
                "placementGroup": "",
                "bundle": index,
                "node": "",
            },
        },
        pending("waits for room"),
    )


def _labels(serving: str, template: Json, role: Json, unit: NewUnit, index: int) -> Mapping[str, str]:
    own = engine_labels(serving, unit.id.group, unit.id.role, unit.id.replica)
    given = dict((template.get("metadata") or {}).get("labels") or {})
    entry = {LABEL_ENTRY: "true"} if index == 0 else {}
    return {**given, **own, **entry, LABEL_REVISION: unit.revision, LABEL_ROLE_HASH: role_hash(role)}


def revision_object(serving: Json, revision: str) -> Json:
    """The current roles, to be kept under this revision."""
    meta = serving["metadata"]
    return {
        "apiVersion": HEKLA_API,
        "kind": "ControllerRevision",
        "metadata": {
            "name": revision_name(meta["name"], revision),
            "namespace": meta["namespace"],
            "labels": {LABEL_SERVING: meta["name"]},
            "ownerReferences": [owner_reference(serving)],
        },
        "spec": {"serving": meta["name"], "revision": revision, "roles": revision_roles(serving)},
    }
