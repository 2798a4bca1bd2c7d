"""A store over a table: applies the rules, numbers the versions, keeps transactions, tells the watchers."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from hekla.platform.api.meta import Json, Ref, matches_labels
from hekla.platform.base.clock import Clock, rfc3339
from hekla.platform.base.errors import AlreadyExists, Conflict, NotFound, Unavailable
from hekla.platform.base.ids import Ids
from hekla.platform.store import rules
from hekla.platform.store.hub import Hub
from hekla.platform.store.interface import Listing
from hekla.platform.store.table import Change, ChangeType, Row, Table
from hekla.platform.store.watcher import Watcher


class TableStore:
    """The `Store` interface over any `Table`. One thread, one event loop, and no `await` inside a transaction."""

    def __init__(self, table: Table, clock: Clock, ids: Ids) -> None:
        self._table = table
        self._clock = clock
        self._ids = ids
        self._hub = Hub(table.history())
        self._pending: list[Change] = []
        self._depth = 0
        self._writer: tuple[int, int] | None = None
        self._is_open = True

    @property
    def _version(self) -> int:
        # Each version is one change, so the open transaction's are counted, not stored.
        return self._hub.version + len(self._pending)

    def create(self, obj: Json) -> Json:
        with self.transaction():
            ref = rules.ref(obj)
            if self._table.get(ref) is not None:
                raise AlreadyExists(f"{ref} already exists")
            self._refuse_orphan(obj)
            return self._write("ADDED", rules.created(obj, uid=self._ids.uid(), now=self._now()))

    def get(self, ref: Ref) -> Json:
        self._check_open()
        text = self._table.get(ref)
        if text is None:
            raise NotFound(f"{ref} not found")
        return rules.decode(text)

    def list(self, kind: str, namespace: str | None = None, labels: dict[str, str] | None = None) -> Listing:
        self._check_open()
        items = [rules.decode(text) for text in self._table.scan(kind, namespace)]
        return Listing([obj for obj in items if matches_labels(obj, labels or {})], str(self._version))

    def update(self, obj: Json) -> Json:
        with self.transaction():
            old = self.get(rules.ref(obj))
            new = rules.updated(old, obj)
            if new is None:
                return old
            return self._remove(new) if rules.is_finished(new) else self._write("MODIFIED", new)

    def update_status(self, obj: Json) -> Json:
        with self.transaction():
            old = self.get(rules.ref(obj))
            new = rules.status_updated(old, obj)
            return old if new is None else self._write("MODIFIED", new)

    def delete(self, ref: Ref, uid: str | None = None) -> Json:
        with self.transaction():
            old = self.get(ref)
            rules.require_uid(old, uid)
            return self._delete(old)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._enter()
        mark = len(self._pending)
        try:
            yield
        except BaseException:
            del self._pending[mark:]
            self._depth -= 1
            self._table.undo()
            raise
        self._depth -= 1
        if self._depth:
            self._table.pop()
        else:
            self._commit()

    def watch(self, kinds: tuple[str, ...], since: str | None = None) -> Watcher:
        self._check_open()
        return self._hub.watch(kinds, since)

    def close(self) -> None:
        if self._is_open:
            assert not self._depth, "a store is not closed inside a transaction"
            self._is_open = False
            self._hub.close()
            self._table.close()

    def _enter(self) -> None:
        self._check_open()
        caller = _caller()
        if self._depth and caller != self._writer:
            raise RuntimeError("a write inside another task's transaction: there must be no await inside a transaction")
        self._table.push()
        self._writer = caller
        self._depth += 1

    def _commit(self) -> None:
        changes, self._pending = self._pending, []
        self._table.commit(changes)
        self._hub.publish(changes)

    def _write(self, kind: ChangeType, obj: Json) -> Json:
        """Give `obj` the next version and store it; returns the caller's copy."""
        text = self._note(kind, obj)
        self._table.put(Row(rules.ref(obj), obj["metadata"]["uid"], rules.owner_uids(obj), text))
        return rules.decode(text)

    def _delete(self, obj: Json) -> Json:
        marked = rules.marked_for_deletion(obj, self._now())
        if not rules.has_finalizers(obj):
            return self._remove(marked or obj)
        return obj if marked is None else self._write("MODIFIED", marked)

    def _remove(self, obj: Json) -> Json:
        """Take `obj` out of the table, and then, breadth first, what only it owned."""
        text = self._drop(obj)
        ended = deque([obj["metadata"]["uid"]])
        while ended:
            uid = ended.popleft()
            for ref in self._table.owned_by(uid):
                if (follower := self._lose_owner(self.get(ref), uid)) is not None:
                    ended.append(follower)
        return rules.decode(text)

    def _lose_owner(self, obj: Json, uid: str) -> str | None:
        """What the end of one owner does to `obj`; returns its uid when it ends with it."""
        if any(self._table.has_uid(owner) for owner in rules.owner_uids(obj)):
            self._write("MODIFIED", rules.without_owner(obj, uid))
            return None
        marked = rules.marked_for_deletion(obj, self._now())
        if not rules.has_finalizers(obj):
            self._drop(marked or obj)
            return str(obj["metadata"]["uid"])
        if marked is not None:
            self._write("MODIFIED", marked)
        return None

    def _drop(self, obj: Json) -> str:
        text = self._note("DELETED", obj)
        self._table.remove(rules.ref(obj))
        return text

    def _note(self, kind: ChangeType, obj: Json) -> str:
        version = self._version + 1
        text = rules.encode(rules.stamped(obj, version))
        self._pending.append(Change(version, kind, obj["kind"], obj["metadata"]["uid"], text))
        return text

    def _refuse_orphan(self, obj: Json) -> None:
        # A controller that read the owner before it was deleted would otherwise leave a child that nobody removes.
        owners = rules.owner_uids(obj)
        if owners and all(self._was_deleted(uid) for uid in owners):
            raise Conflict(f"{rules.ref(obj)} can't be created: its owner {', '.join(owners)} was deleted")

    def _was_deleted(self, uid: str) -> bool:
        return self._hub.was_deleted(uid) or any(c.type == "DELETED" and c.uid == uid for c in self._pending)

    def _now(self) -> str:
        return rfc3339(self._clock.now())

    def _check_open(self) -> None:
        if not self._is_open:
            raise Unavailable("the store is closed")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._table!r}, {self._hub!r})"


def _caller() -> tuple[int, int]:
    """The thread and the task that run now."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return threading.get_ident(), id(task)
