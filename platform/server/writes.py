"""Writes through admission to the store. A dry run is the same write in a transaction that is then taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hekla.platform.api.admission import admit, admit_batch
from hekla.platform.api.meta import Json, Ref, ref_of
from hekla.platform.api.patch import merge_patch
from hekla.platform.api.registry import Kind, all_kinds
from hekla.platform.base.errors import BadRequest, Conflict, NotFound
from hekla.platform.server.answers import MethodNotAllowed
from hekla.platform.store.interface import Store

T = TypeVar("T")

APPLY_OBJECTS_MAX = 500
"""Objects in one apply: the transaction holds the event loop while it is written."""


class _TakenBack(Exception):
    """Ends a dry run's transaction."""


def carried_out(store: Store, write: Callable[[], T], *, dry_run: bool) -> T:
    """Do it all or not at all; with `dry_run`, not at all, but with the same answer and the same errors."""
    results: list[T] = []
    try:
        with store.transaction():
            results.append(write())
            if dry_run:
                raise _TakenBack
    except _TakenBack:
        pass
    return results[0]


def find(store: Store, ref: Ref) -> Json | None:
    try:
        return store.get(ref)
    except NotFound:
        return None


def placed(obj: Json, kind: Kind, namespace: str, name: str | None = None) -> Json:
    """The body with what the path says filled in. Raises BadRequest when the body says something else."""
    meta = obj.get("metadata", {})
    if not isinstance(meta, dict):
        raise BadRequest(f"metadata: is {type(meta).__name__}, must be an object")
    expected = {"kind": (obj.get("kind"), kind.kind), "apiVersion": (obj.get("apiVersion"), kind.api_version)}
    expected["metadata.namespace"] = (meta.get("namespace"), namespace)
    if name is not None:
        expected["metadata.name"] = (meta.get("name"), name)
    for path, (said, wanted) in expected.items():
        if said not in (None, "", wanted):
            raise BadRequest(f"{path}: is {said!r}, but the path says {wanted!r}")
    meta = {**meta, "namespace": namespace} if name is None else {**meta, "namespace": namespace, "name": name}
    return {**obj, "kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta}


def create(store: Store, obj: Json) -> Json:
    admitted = admit(obj)
    # A new object's status is its controllers' to write.
    admitted.pop("status", None)
    return store.create(admitted)


def replace(store: Store, obj: Json) -> Json:
    return store.update(admit(obj, store.get(ref_of(obj))))


def patch(store: Store, ref: Ref, changes: Json) -> Json:
    old = store.get(ref)
    new = merge_patch(old, changes)
    kind = all_kinds()[ref.kind]
    return store.update(admit(placed(new, kind, ref.namespace, ref.name), old))


def write_status(store: Store, ref: Ref, sent: Json, *, is_patch: bool) -> Json:
    """Replace or merge `status`; everything else but the version in `sent` is ignored."""
    old = store.get(ref)
    status: Any = merge_patch(old.get("status", {}), sent.get("status", {})) if is_patch else sent.get("status", {})
    if not isinstance(status, dict):
        raise BadRequest(f"status: is {type(status).__name__}, must be an object")
    meta = sent.get("metadata") if isinstance(sent.get("metadata"), dict) else {}
    version = (meta or {}).get("resourceVersion") or old["metadata"]["resourceVersion"]
    return store.update_status({**old, "metadata": {**old["metadata"], "resourceVersion": version}, "status": status})


def apply(store: Store, objects: Any, *, dry_run: bool) -> list[Json]:
    """Create or update all objects in one transaction; says of each what was done.

    The spec is replaced; labels and annotations are merged. Raises Invalid with every problem of every object, and
    Conflict for an object that is being deleted.
    """
    _check_batch(objects)
    admitted = admit_batch(objects, lambda ref: find(store, ref) is not None, lambda ref: find(store, ref))
    return carried_out(store, lambda: [_applied(store, obj) for obj in admitted], dry_run=dry_run)


def _check_batch(objects: Any) -> None:
    if not isinstance(objects, list) or not all(isinstance(obj, dict) for obj in objects):
        raise BadRequest("objects: must be a list of objects")
    if len(objects) > APPLY_OBJECTS_MAX:
        raise BadRequest(f"objects: has {len(objects)} objects, at most {APPLY_OBJECTS_MAX} are allowed in one apply")
    for obj in objects:
        kind = all_kinds().get(str(obj.get("kind")))
        if kind is not None and kind.internal:
            raise MethodNotAllowed(f"kind: {kind.kind} objects are written by hekla itself and can't be applied")


def _applied(store: Store, obj: Json) -> Json:
    ref = ref_of(obj)
    old = find(store, ref)
    if old is None:
        create(store, obj)
        action = "created"
    else:
        merged = _merged(old, obj)
        action = "configured" if _differs(old, merged) else "unchanged"
        _require_not_ending(old, ref)
        store.update(merged)
    return {"kind": ref.kind, "namespace": ref.namespace, "name": ref.name, "action": action}


def _require_not_ending(old: Json, ref: Ref) -> None:
    if old["metadata"].get("deletionTimestamp"):
        raise Conflict(f"{ref} is being deleted; wait until it is gone: hekla wait {ref.kind} {ref.name} --for=delete")


def _merged(old: Json, new: Json) -> Json:
    meta = dict(old["metadata"])
    for name in ("labels", "annotations"):
        meta[name] = {**(meta.get(name) or {}), **(new["metadata"].get(name) or {})}
    if new["metadata"].get("resourceVersion"):
        meta["resourceVersion"] = new["metadata"]["resourceVersion"]
    return {**old, "metadata": meta, "spec": new["spec"]}


def _differs(old: Json, new: Json) -> bool:
    metas = [[obj["metadata"].get(name) or {} for name in ("labels", "annotations")] for obj in (old, new)]
    return bool(old.get("spec") != new["spec"] or metas[0] != metas[1])
