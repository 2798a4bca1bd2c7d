"""Reads and writes of Engine objects. Each write re-reads first, without a pause in between, and checks the uid."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hekla.deployments.naming import ANNOTATION_RETIRED, FINALIZER_ENGINE, LABEL_SERVING
from hekla.platform.api.meta import Json, Ref
from hekla.platform.base.errors import NotFound
from hekla.platform.store.interface import Store


class EngineStore:
    """The Engine objects of all servings. Methods that find the object gone, or another in its place, do nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> list[Json]:
        return self._store.list("Engine").items

    def of(self, serving: Ref) -> list[Json]:
        return self._store.list("Engine", serving.namespace, {LABEL_SERVING: serving.name}).items

    def find(self, namespace: str, name: str, uid: str) -> Json | None:
        """The object, or None when it is gone or another."""
        try:
            found = self._store.get(Ref("Engine", namespace, name))
        except NotFound:
            return None
        return found if found["metadata"]["uid"] == uid else None

    def again(self, engine: Json) -> Json | None:
        """The object as it is now."""
        meta = engine["metadata"]
        return self.find(meta["namespace"], meta["name"], meta["uid"])

    def set_status(self, engine: Json, change: Callable[[Json], Json]) -> Json | None:
        """Write what `change` makes of the present status; returns the object."""
        found = self.again(engine)
        if found is None:
            return None
        status = change(found.get("status") or {})
        return self._store.update_status({**found, "status": status}) if status != found.get("status") else found

    def set_spec(self, engine: Json, **fields: object) -> Json | None:
        found = self.again(engine)
        return None if found is None else self._store.update({**found, "spec": {**found["spec"], **fields}})

    def set_label(self, engine: Json, key: str, value: str) -> None:
        found = self.again(engine)
        if found is not None:
            found["metadata"]["labels"] = {**found["metadata"].get("labels", {}), key: value}
            self._store.update(found)

    def retire(self, engines: Iterable[Json], reason: str) -> None:
        """Say why, and mark for deletion: the finalizer keeps them until they are stopped."""
        with self._store.transaction():
            for engine in engines:
                self._retire(engine, reason)

    def _retire(self, engine: Json, reason: str) -> None:
        found = self.again(engine)
        if found is None:
            return
        meta = found["metadata"]
        if ANNOTATION_RETIRED not in (meta.get("annotations") or {}):
            meta["annotations"] = {**(meta.get("annotations") or {}), ANNOTATION_RETIRED: reason}
            self._store.update(found)
        if not meta.get("deletionTimestamp"):
            self._store.delete(Ref("Engine", meta["namespace"], meta["name"]), meta["uid"])

    def release(self, engines: Iterable[Json]) -> None:
        """Drop our finalizer: what is marked for deletion goes."""
        with self._store.transaction():
            for engine in engines:
                found = self.again(engine)
                if found is not None:
                    kept = [name for name in found["metadata"].get("finalizers", []) if name != FINALIZER_ENGINE]
                    found["metadata"]["finalizers"] = kept
                    self._store.update(found)
