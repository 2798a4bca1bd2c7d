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

STEP_FRACTION = 0.1
"""After this share of the limit has been written the namespace is counted anew, and when full loses as many at once:
a listing for every event would be slow."""


class EventRecorder:
    """An Event outlives the object it is about; only the limit per namespace removes it, the oldest first.

    Recorders of one store don't know of each other: each beyond the first may exceed the limit by a tenth of it.
    """

    def __init__(self, store: Store, clock: Clock, *, per_namespace_max: int = EVENTS_PER_NAMESPACE_MAX) -> None:
        self._store = store
        self._clock = clock
        self._max = per_namespace_max
        self._room: dict[str, int] = {}  # per namespace, until the next look

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
        room = self._room.get(namespace, 0)
        if room == 0:
            room = self._trim(namespace)
        self._room[namespace] = room - 1

    def _trim(self, namespace: str) -> int:
        """Delete the oldest of a full namespace; returns how many may be written before the next look."""
        step = max(1, int(self._max * STEP_FRACTION))
        events = self._store.list(KIND.kind, namespace).items
        free = self._max - len(events)
        if free >= 1:
            return min(free, step)
        for event in sorted(events, key=_age)[: step - free]:
            self._store.delete(ref_of(event))
        return step


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
