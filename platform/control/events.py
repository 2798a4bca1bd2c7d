"""Writes Event objects: what happened to an object, counted when it repeats."""

from __future__ import annotations

import hashlib
from typing import Literal

from hekla.platform.api.kinds.event import KIND
from hekla.platform.api.meta import Json, Ref, ref_of
from hekla.platform.base.clock import Clock, rfc3339
from hekla.platform.base.errors import NotFound
from hekla.platform.base.limits import EVENTS_PER_NAMESPACE_MAX, NAME_CHARS_MAX
from hekla.platform.store.interface import Store

MESSAGE_CHARS_MAX = 1024
"""What a Kubernetes Event holds; a longer message is cut."""

TRIM_FRACTION = 0.1
"""At the limit this share of a namespace's events goes at once, so that the listing it takes is rare."""


class EventRecorder:
    """One per store: it counts what it writes, and lists a namespace only when that count reaches the limit.

    An Event outlives the object it is about; only the limit per namespace removes it.
    """

    def __init__(self, store: Store, clock: Clock, *, per_namespace_max: int = EVENTS_PER_NAMESPACE_MAX) -> None:
        self._store = store
        self._clock = clock
        self._max = per_namespace_max
        self._counts: dict[str, int] = {}

    def record(self, obj: Json, type: Literal["Normal", "Warning"], reason: str, message: str = "") -> Json:
        """Write the Event, or count it once more when the same has happened to this object; returns the Event."""
        now = rfc3339(self._clock.now())
        event = _event(obj, type, reason, message[:MESSAGE_CHARS_MAX])
        with self._store.transaction():
            try:
                known = self._store.get(ref_of(event))
            except NotFound:
                event["spec"] |= {"count": 1, "firstSeen": now, "lastSeen": now}
                self._make_room(event["metadata"]["namespace"])
                return self._store.create(event)
            known["spec"] |= {"count": known["spec"]["count"] + 1, "lastSeen": now}
            return self._store.update(known)

    def _make_room(self, namespace: str) -> None:
        """Before one more is written."""
        count = self._counts.get(namespace)
        if count is None or count >= self._max:
            count = self._trim(namespace)
        self._counts[namespace] = count + 1

    def _trim(self, namespace: str) -> int:
        """Delete the oldest of a full namespace; returns how many are left."""
        events = self._store.list(KIND.kind, namespace).items
        if len(events) < self._max:
            return len(events)
        excess = len(events) - self._max + max(1, int(self._max * TRIM_FRACTION))
        for event in sorted(events, key=_age)[:excess]:
            self._store.delete(ref_of(event))
        return len(events) - excess


def _event(obj: Json, type: str, reason: str, message: str) -> Json:
    about = ref_of(obj)
    uid = obj["metadata"].get("uid", "")
    return {
        "apiVersion": KIND.api_version,
        "kind": KIND.kind,
        "metadata": {
            "name": _name(about, uid, type, reason, message),
            "namespace": about.namespace,
            "labels": {},
        },
        "spec": {
            "regardingKind": about.kind,
            "regardingName": about.name,
            "regardingUid": uid,
            "type": type,
            "reason": reason,
            "message": message,
        },
    }


def _name(about: Ref, *what: str) -> str:
    """The same event has the same name, so that finding it again takes no search."""
    digest = hashlib.sha256("\0".join([about.kind, about.name, *what]).encode(errors="replace")).hexdigest()[:16]
    return f"{about.name[: NAME_CHARS_MAX - 17].rstrip('.-')}.{digest}"


def _age(event: Json) -> tuple[str, int]:
    return event["spec"]["lastSeen"], int(event["metadata"]["resourceVersion"])
