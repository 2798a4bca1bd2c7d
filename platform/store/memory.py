"""The in-memory store: the whole interface, nothing durable. For tests, simulations and dry runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from hekla.platform.api.meta import Ref
from hekla.platform.base.clock import Clock
from hekla.platform.base.ids import Ids
from hekla.platform.store.core import TableStore
from hekla.platform.store.table import Change, Row


class MemoryStore(TableStore):
    def __init__(self, clock: Clock, ids: Ids) -> None:
        super().__init__(MemoryTable(), clock, ids)


class MemoryTable:
    """Rows in dicts; a log of what was there before takes a transaction back."""

    def __init__(self) -> None:
        self._kinds: defaultdict[str, dict[Ref, Row]] = defaultdict(dict)
        self._owned: defaultdict[str, set[Ref]] = defaultdict(set)
        self._uids: set[str] = set()
        self._before: list[tuple[Ref, Row | None]] = []
        self._marks: list[int] = []

    def get(self, ref: Ref) -> str | None:
        row = self._kinds.get(ref.kind, {}).get(ref)
        return None if row is None else row.text

    def scan(self, kind: str, namespace: str | None) -> list[str]:
        rows = self._kinds.get(kind, {}).values()
        found = [row for row in rows if namespace is None or row.ref.namespace == namespace]
        return [row.text for row in sorted(found, key=lambda row: (row.ref.namespace, row.ref.name))]

    def owned_by(self, uid: str) -> list[Ref]:
        return sorted(self._owned.get(uid, ()))

    def has_uid(self, uid: str) -> bool:
        return uid in self._uids

    def put(self, row: Row) -> None:
        self._before.append((row.ref, self._set(row.ref, row)))

    def remove(self, ref: Ref) -> None:
        self._before.append((ref, self._set(ref, None)))

    def push(self) -> None:
        self._marks.append(len(self._before))

    def pop(self) -> None:
        self._marks.pop()

    def undo(self) -> None:
        mark = self._marks.pop()
        while len(self._before) > mark:
            self._set(*self._before.pop())

    def commit(self, changes: Sequence[Change]) -> None:
        self._marks.pop()
        self._before.clear()

    def history(self) -> list[Change]:
        return []

    def close(self) -> None:
        pass

    def _set(self, ref: Ref, row: Row | None) -> Row | None:
        """Put or remove; returns what was there."""
        old = self._kinds[ref.kind].pop(ref, None)
        if old is not None:
            self._uids.discard(old.uid)
            for owner in old.owners:
                self._owned[owner].discard(ref)
                if not self._owned[owner]:
                    del self._owned[owner]
        if row is not None:
            self._kinds[ref.kind][ref] = row
            self._uids.add(row.uid)
            for owner in row.owners:
                self._owned[owner].add(ref)
        return old

    def __repr__(self) -> str:
        return f"MemoryTable({sum(map(len, self._kinds.values()))} objects)"
