"""Is it ready yet, and how far is it? Pure: fed with changes, it answers; the clients do the watching."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hekla.platform.api.meta import Json, Ref, is_owned_by, ref_of
from hekla.platform.api.registry import all_kinds, kind_named
from hekla.platform.base.errors import HeklaError, NotFound
from hekla.platform.sdk.watching import Change, WatchState

WAIT_TIMEOUT_S = 600.0
"""Default patience: a model of a few gigabytes is fetched and loaded well within ten minutes."""

MULTI_WATCH_PATH = "/hekla/v1/watch"


class NotReady(HeklaError, TimeoutError):
    """The object was not ready (or not gone) in time; the message quotes what its condition says."""


@dataclass(frozen=True)
class Progress:
    """A moment of the wait: what the object says, and its engines by name."""

    object: Json
    message: str
    engines: tuple[Json, ...]

    def __str__(self) -> str:
        steps = [f"{engine['metadata']['name']}: {engine_step(engine)}" for engine in self.engines]
        return " · ".join(steps) or self.message


OnProgress = Callable[[Progress], None]


def engine_step(engine: Json) -> str:
    """`Fetching 40 %`, `Loading`, `Ready`, `Failed (why)`."""
    status = engine.get("status") or {}
    phase = str(status.get("phase") or "Pending")
    progress = float(status.get("progress") or 0.0)
    if phase in ("Fetching", "Loading") and 0 < progress < 1:
        return f"{phase} {progress:.0%}"
    if phase == "Failed" and status.get("message"):
        return f"Failed ({status['message']})"
    return phase


def readiness(obj: Json) -> tuple[bool, str]:
    """Whether the object is ready, and what its ready condition says in words."""
    wanted = kind_named(obj["kind"]).ready_condition
    if wanted is None:
        return True, ""
    status = obj.get("status") or {}
    condition = next((c for c in status.get("conditions") or () if c["type"] == wanted), None)
    if condition is None:
        return False, f"no {wanted} condition yet: no controller has looked at it"
    observed = condition.get("observedGeneration") or status.get("observedGeneration")
    is_stale = isinstance(observed, int) and observed < int(obj["metadata"].get("generation") or 0)
    words = condition.get("message") or condition.get("reason") or f"{wanted} is {condition['status']}"
    return condition["status"] == "True" and not is_stale, str(words)


def descendants(root: Json, objects: Iterable[Json]) -> list[Json]:
    """Everything among `objects` that is below `root` by ownership."""
    candidates, found = list(objects), []
    uids = [root["metadata"].get("uid", "")]
    while uids:
        uid = uids.pop()
        children = [obj for obj in candidates if is_owned_by(obj, uid)]
        found += children
        uids += [child["metadata"]["uid"] for child in children]
    return found


class Wait:
    """Waits for one object to become ready, or to go away with all it owns (`gone`; `uid` if it may already be gone).

    Owned objects are followed for progress and reasons.
    """

    def __init__(self, kind: str, namespace: str, name: str, *, gone: bool = False, uid: str = "") -> None:
        self.ref = Ref(kind_named(kind).kind, namespace, name)
        self.is_for_deletion = gone
        self._owned = _kinds_followed()
        self._objects: dict[Ref, Json] = {}
        self._uid = uid

    def watch(self) -> WatchState:
        """The watch that feeds this wait."""
        kinds = ",".join(sorted({self.ref.kind, *self._owned}))
        return WatchState(MULTI_WATCH_PATH, {"kinds": kinds, "namespace": self.ref.namespace})

    def feed(self, changes: list[Change]) -> None:
        for change in changes:
            ref = ref_of(change.object)
            if change.type == "DELETED":
                self._objects.pop(ref, None)
            else:
                self._objects[ref] = change.object
                self._uid = change.object["metadata"].get("uid", "") if ref == self.ref and not self._uid else self._uid

    def outcome(self) -> Json | None:
        """The object (its last state) when the wait is over, else None. Raises NotFound when it went, or never was."""
        obj = self._objects.get(self.ref)
        if self.is_for_deletion:
            return None if self._remains() else {}
        if obj is None:
            raise NotFound(f"{self.ref} not found")
        return obj if readiness(obj)[0] else None

    def progress(self) -> Progress | None:
        obj = self._objects.get(self.ref)
        if obj is None:
            return None
        family = descendants(obj, self._objects.values())
        engines = sorted((o for o in family if o["kind"] == "Engine"), key=lambda e: str(e["metadata"]["name"]))
        return Progress(obj, self._words(obj, family), tuple(engines))

    def timed_out(self, timeout_s: float) -> NotReady:
        progress = self.progress()
        if self.is_for_deletion:
            return NotReady(f"{self.ref} is not gone after {timeout_s:g} s; there remain: {', '.join(self._remains())}")
        if progress is None:
            return NotReady(f"{self.ref} could not be watched within {timeout_s:g} s")
        engines = f" ({progress})" if progress.engines else ""
        return NotReady(f"{self.ref} is not ready after {timeout_s:g} s: {progress.message}{engines}")

    def _remains(self) -> list[str]:
        """What has still to go, with the finalizers that hold it."""
        root = {"metadata": {"uid": self._uid}}
        objects = [
            obj for obj in self._objects.values() if obj["metadata"].get("uid") == self._uid or ref_of(obj) == self.ref
        ]
        left = [*objects, *(descendants(root, self._objects.values()) if self._uid else ())]
        held = {str(ref_of(obj)): ", ".join(obj["metadata"].get("finalizers") or ()) for obj in left}
        return [f"{ref} (held by {finalizers})" if finalizers else ref for ref, finalizers in held.items()]

    def _words(self, obj: Json, family: list[Json]) -> str:
        """The most telling message: why nothing could be placed, else the ready condition's own."""
        for member in [obj, *family]:
            for condition in (member.get("status") or {}).get("conditions") or ():
                if condition["type"] == "Schedulable" and condition["status"] == "False":
                    return str(condition.get("message") or condition.get("reason"))
        return readiness(obj)[1]

    def __repr__(self) -> str:
        return f"Wait({self.ref}, seen={len(self._objects)})"


def _kinds_followed() -> tuple[str, ...]:
    """Kinds whose state tells why a model is not ready."""
    return tuple(kind for kind in ("ModelServing", "Engine") if kind in all_kinds())
