"""The `/scale` subresource: one kind's replica count in the shape every autoscaler knows."""

from __future__ import annotations

import copy
from typing import Any

from hekla.platform.api.admission import admit
from hekla.platform.api.meta import Json, Ref
from hekla.platform.api.patch import merge_patch
from hekla.platform.api.registry import Kind
from hekla.platform.base.errors import BadRequest, FieldError, Invalid, NotFound
from hekla.platform.store.interface import Store


def scale_path_of(kind: Kind) -> list[str]:
    """Raises NotFound for a kind without replicas."""
    if kind.scale_path is None:
        raise NotFound(f"{kind.plural} have no scale subresource: nothing about them is counted in replicas")
    return kind.scale_path.split(".")


def scale_of(kind: Kind, obj: Json) -> Json:
    """The object's `autoscaling/v1` Scale."""
    meta, status = obj["metadata"], obj.get("status") or {}
    replicas: Any = obj
    for step in scale_path_of(kind):
        replicas = replicas.get(step) if isinstance(replicas, dict) else None
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: meta[name] for name in kept if name in meta},
        "spec": {"replicas": int(replicas or 0)},
        "status": {"replicas": int(status.get("replicas") or 0), "selector": str(status.get("labelSelector") or "")},
    }


def rescale(store: Store, kind: Kind, ref: Ref, sent: Json, *, is_patch: bool) -> Json:
    """Write the replica count; returns the new Scale. Raises Invalid, Conflict (stale resourceVersion), NotFound."""
    old = store.get(ref)
    wanted = merge_patch(scale_of(kind, old), sent) if is_patch else sent
    replicas = _replicas(wanted)
    new = copy.deepcopy(old)
    *way, last = scale_path_of(kind)
    place = new
    for step in way:
        place = place.setdefault(step, {})
    place[last] = replicas
    version = (wanted.get("metadata") or {}).get("resourceVersion")
    if version:
        new["metadata"]["resourceVersion"] = version
    return scale_of(kind, store.update(admit(new, old)))


def _replicas(scale: Json) -> int:
    spec = scale.get("spec")
    if not isinstance(spec, dict) or "replicas" not in spec:
        raise BadRequest("spec.replicas: is missing")
    replicas = spec["replicas"]
    if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
        problem = f"is {replicas!r}, must be a whole number from 0"
        raise Invalid.of("Scale", [FieldError("spec.replicas", problem)])
    return replicas
