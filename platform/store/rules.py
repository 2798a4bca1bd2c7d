"""What a write does to an object: pure functions from the old object and the caller's to the new one.

Shared by every store, so that the twins can't drift apart. The rules are Kubernetes' (API conventions, "Concurrency
control and consistency" and garbage collection), in the short form that `interface` states. Each function returns a
new object and changes none it was given; one that returns None says that nothing has to be written.
"""

from __future__ import annotations

import json
from typing import Any

from hekla.platform.api.meta import Json, Ref
from hekla.platform.base.errors import BadRequest, Conflict, FieldError, Invalid
from hekla.platform.base.limits import API_BODY_BYTES_MAX

STORE_OWNED = ("uid", "creationTimestamp", "generation", "resourceVersion", "deletionTimestamp")
"""Metadata that only the store writes; what a caller puts there is compared (uid, resourceVersion) or ignored."""

NOT_CONTENT = ("apiVersion", "kind", "metadata", "status")
"""Top-level fields whose change is no new generation; all others (`spec`) are what the object asks for."""


def encode(obj: Json) -> str:
    """The object as JSON text. Raises BadRequest for what JSON can't say, Invalid when it is too large."""
    try:
        text = json.dumps(obj, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequest(f"the object is not JSON: {error}") from error
    if len(text) > API_BODY_BYTES_MAX:
        problem = f"the object has {len(text)} bytes, the store takes at most {API_BODY_BYTES_MAX}"
        raise Invalid.of(str(ref(obj)), [FieldError("", problem)])
    return text


def decode(text: str) -> Json:
    obj: Json = json.loads(text)
    return obj


def ref(obj: Json) -> Ref:
    """Where the object lies. Raises BadRequest when it doesn't say."""
    kind, meta = obj.get("kind"), obj.get("metadata")
    if not isinstance(kind, str) or not kind:
        raise BadRequest(f"kind: is {kind!r}, must be the name of a kind")
    if not isinstance(meta, dict):
        raise BadRequest(f"metadata: is {meta!r}, must be an object with a name")
    name, namespace = meta.get("name"), meta.get("namespace") or "default"
    if not isinstance(name, str) or not name:
        raise BadRequest(f"metadata.name: is {name!r}, must be a non-empty string")
    if not isinstance(namespace, str):
        raise BadRequest(f"metadata.namespace: is {namespace!r}, must be a string")
    return Ref(kind, namespace, name)


def created(obj: Json, *, uid: str, now: str) -> Json:
    """A new object of generation 1. `status`, when given, is kept: controllers create objects that have one."""
    meta = {
        **_writable(obj),
        "namespace": ref(obj).namespace,
        "uid": uid,
        "generation": 1,
        "creationTimestamp": now,
    }
    return {**obj, "metadata": meta}


def updated(old: Json, new: Json) -> Json | None:
    """`old` with the writable metadata and the content of `new`. Raises Conflict, Invalid."""
    _require_current(old, new)
    _forbid_new_finalizers(old, new)
    kept = {key: old["metadata"][key] for key in STORE_OWNED if key in old["metadata"]}
    meta = {**_writable(new), "namespace": ref(old).namespace, **kept}
    result = {**new, "metadata": meta}
    result.pop("status", None)
    if "status" in old:
        result["status"] = old["status"]
    if not _same(_content(old), _content(result)):
        meta["generation"] = kept["generation"] + 1
    return None if _same(_essence(old), _essence(result)) else result


def status_updated(old: Json, new: Json) -> Json | None:
    """`old` with the status of `new`. Raises Conflict."""
    _require_current(old, new)
    status = new.get("status") or {}
    return None if _same(old.get("status") or {}, status) else {**old, "status": status}


def marked_for_deletion(old: Json, now: str) -> Json | None:
    """`old` with a deletionTimestamp; None when it has one already."""
    if old["metadata"].get("deletionTimestamp"):
        return None
    return {**old, "metadata": {**old["metadata"], "deletionTimestamp": now}}


def without_owner(old: Json, uid: str) -> Json:
    """`old` without its reference to an owner that is gone, while others remain."""
    owners = [owner for owner in old["metadata"]["ownerReferences"] if owner.get("uid") != uid]
    return {**old, "metadata": {**old["metadata"], "ownerReferences": owners}}


def stamped(obj: Json, version: int) -> Json:
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(version)}}


def has_finalizers(obj: Json) -> bool:
    return bool(obj["metadata"].get("finalizers"))


def is_finished(obj: Json) -> bool:
    """Marked for deletion and held by no finalizer: it goes."""
    return bool(obj["metadata"].get("deletionTimestamp")) and not has_finalizers(obj)


def owner_uids(obj: Json) -> tuple[str, ...]:
    """Uids of the owners, each once, in order."""
    owners = obj["metadata"].get("ownerReferences") or ()
    return tuple(dict.fromkeys(owner["uid"] for owner in owners if owner.get("uid")))


def require_uid(obj: Json, uid: str | None) -> None:
    """Raises Conflict when the caller means an object that is not this one."""
    if uid and uid != obj["metadata"]["uid"]:
        problem = f"the caller's uid is {uid}, the stored object's is {obj['metadata']['uid']}"
        raise Conflict(f"{ref(obj)} is another object of that name: {problem}")


def _require_current(old: Json, new: Json) -> None:
    require_uid(old, new["metadata"].get("uid"))
    theirs, ours = new["metadata"].get("resourceVersion"), old["metadata"]["resourceVersion"]
    if theirs and theirs != ours:
        raise Conflict(
            f"{ref(old)} has changed: the caller's resourceVersion is {theirs}, the stored one is {ours}; "
            "get the object anew and apply the change to it"
        )


def _forbid_new_finalizers(old: Json, new: Json) -> None:
    if not old["metadata"].get("deletionTimestamp"):
        return
    added = set(new["metadata"].get("finalizers") or ()) - set(old["metadata"].get("finalizers") or ())
    if added:
        problem = f"{', '.join(sorted(added))} can't be added: the object is being deleted"
        raise Invalid.of(str(ref(old)), [FieldError("metadata.finalizers", problem)])


def _writable(obj: Json) -> Json:
    return {key: value for key, value in obj["metadata"].items() if key not in STORE_OWNED}


def _content(obj: Json) -> Json:
    return {key: value for key, value in obj.items() if key not in NOT_CONTENT}


def _essence(obj: Json) -> Json:
    # An empty list, an empty map and a missing field of metadata say the same; a write between them is none.
    meta = {key: value for key, value in obj["metadata"].items() if value not in (None, "", {}, [])}
    return {**obj, "metadata": meta}


def _same(one: Any, other: Any) -> bool:
    # As text, because Python holds 1, 1.0 and True for equal and JSON doesn't.
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
