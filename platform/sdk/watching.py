"""The client's side of a watch, as a state machine: it says which call comes next and what each line means.

Rule 1: the first connection begins with the objects there are (ADDED), then their changes.
Rule 2: a broken connection resumes after the last version seen: nothing is missed, nothing comes twice.
Rule 3: when the server no longer remembers that version (410), everything is sent anew, and only differences are
handed on: what is unchanged is not repeated, and what went meanwhile is DELETED.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from hekla.platform.api.kstatus import error_of
from hekla.platform.api.meta import Json, Ref, ref_of
from hekla.platform.base.errors import Gone
from hekla.platform.sdk.calls import Call

WATCH_REQUEST_S_MAX = 300
"""The server ends a watch after this long; the client resumes. A silently dead connection is noticed by its silence."""

WATCH_SILENCE_S_MAX = 15.0
"""Longest silence on a watch: three of the server's bookmarks."""

RECONNECT_DELAY_S_MIN = 0.1
RECONNECT_DELAY_S_MAX = 5.0

INITIAL_END = "k8s.io/initial-events-end"
"""Annotation of the bookmark that ends the initial objects."""


@dataclass(frozen=True)
class Change:
    """`type` is ADDED, MODIFIED or DELETED; `object` as of then."""

    type: str
    object: Json


Changes = list[Change]


def silence_allowed_s(time_left_s: float) -> float:
    """Read timeout of a watch: the server ends it a second after the time is up, and is never silent for long."""
    return min(WATCH_SILENCE_S_MAX, time_left_s + 5)


class WatchState:
    """Feed it the lines of each connection; it returns the changes and plans the next connection."""

    def __init__(self, path: str, params: Mapping[str, str]) -> None:
        self._path = path
        self._params = params
        self._version: str | None = None
        self._known: dict[Ref, Json] = {}
        self._listed: set[Ref] | None = None
        self._failures = 0
        self._brought_lines = False
        self._was_connected = False

    def next_call(self, time_left_s: float = inf) -> Call:
        """The call that begins or resumes the watch; the server ends it after `time_left_s` at most."""
        seconds = int(min(WATCH_REQUEST_S_MAX, max(0, time_left_s) + 1))
        params = {**self._params, "watch": "true", "timeoutSeconds": str(seconds), "allowWatchBookmarks": "true"}
        if self._version is None:
            self._listed = set()
            params["sendInitialEvents"] = "true"
        else:
            params["resourceVersion"] = self._version
        return Call("GET", self._path, params)

    def feed(self, line: str) -> Changes:
        """Changes that this line brings. Raises ApiError for an error other than Gone, which only means starting anew."""
        self._was_connected = self._brought_lines = True
        event = json.loads(line)
        kind, obj = event["type"], event["object"]
        if kind == "ERROR":
            self._fail(obj)
            return []
        changes = self._bookmark(obj) if kind == "BOOKMARK" else self._change(kind, obj)
        if self._listed is None:
            self._version = obj["metadata"]["resourceVersion"]
        return changes

    @property
    def is_caught_up(self) -> bool:
        """True once every object that exists has been handed on."""
        return self._listed is None and self._version is not None

    @property
    def was_connected(self) -> bool:
        """True once any line arrived: from then on a lost connection is worth trying again."""
        return self._was_connected

    def ended(self) -> float:
        """Note the end of a connection; seconds to wait before the next call."""
        if self._brought_lines:
            self._failures = 0
            self._brought_lines = False
            return 0.0
        self._failures += 1
        return float(min(RECONNECT_DELAY_S_MAX, RECONNECT_DELAY_S_MIN * 2 ** min(self._failures, 10)))

    def _fail(self, status: Json) -> None:
        error = error_of(status)
        if not isinstance(error, Gone):
            raise error
        self._version = None

    def _bookmark(self, obj: Json) -> Changes:
        if self._listed is None or INITIAL_END not in (obj["metadata"].get("annotations") or {}):
            return []
        gone = [ref for ref in self._known if ref not in self._listed]
        self._listed = None
        return [Change("DELETED", self._known.pop(ref)) for ref in gone]

    def _change(self, kind: str, obj: Json) -> Changes:
        ref = ref_of(obj)
        if kind == "DELETED":
            return [Change("DELETED", obj)] if self._known.pop(ref, None) is not None else []
        if self._listed is not None:
            self._listed.add(ref)
        old = self._known.get(ref)
        self._known[ref] = obj
        if old is None:
            return [Change("ADDED", obj)]
        if old["metadata"].get("resourceVersion") == obj["metadata"].get("resourceVersion"):
            return []
        return [Change("MODIFIED", obj)]

    def __repr__(self) -> str:
        return f"WatchState({self._path}, since={self._version}, objects={len(self._known)})"
