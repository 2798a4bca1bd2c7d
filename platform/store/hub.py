"""Hands committed changes to watchers: a bounded history to resume from, a bounded queue per watcher."""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from collections.abc import Iterable, Sequence

from hekla.platform.base.errors import BadRequest, Gone
from hekla.platform.base.limits import WATCH_HISTORY_EVENTS_MAX
from hekla.platform.store.table import Change
from hekla.platform.store.watcher import Watcher


class Hub:
    """The store's versions in order. A change exists for watchers from `publish` on, which follows the commit."""

    def __init__(self, history: Iterable[Change] = (), history_max: int = WATCH_HISTORY_EVENTS_MAX) -> None:
        self._history = deque(history, maxlen=history_max)
        self._deleted = {change.uid for change in self._history if change.type == "DELETED"}
        self._numbers = itertools.count()
        # Weak, so that a watch nobody reads any more costs nothing; in order of birth, so that runs repeat.
        self._watchers: weakref.WeakValueDictionary[int, Watcher] = weakref.WeakValueDictionary()
        self.version = self._history[-1].version if self._history else 0
        """Of the newest change published."""

    def publish(self, changes: Sequence[Change]) -> None:
        """Append changes to the history, then wake watchers: they see a transaction's changes together."""
        for change in changes:
            assert change.version == self.version + 1, f"version {change.version} follows {self.version}"
            self.version = change.version
            self._remember(change)
        for watcher in list(self._watchers.values()):
            watcher.offer(changes)

    def watch(self, kinds: tuple[str, ...], since: str | None) -> Watcher:
        """Raises Gone when `since` is not within the history, BadRequest when it is no version."""
        backlog = [] if since is None else self._after(since)
        watcher = Watcher(kinds, lambda: self.version)
        watcher.offer(backlog)
        self._watchers[next(self._numbers)] = watcher
        return watcher

    def was_deleted(self, uid: str) -> bool:
        """True when the history tells of that object's end."""
        return uid in self._deleted

    def close(self) -> None:
        for watcher in list(self._watchers.values()):
            watcher.end()

    def _remember(self, change: Change) -> None:
        if len(self._history) == self._history.maxlen and self._history[0].type == "DELETED":
            self._deleted.discard(self._history[0].uid)
        self._history.append(change)
        if change.type == "DELETED":
            self._deleted.add(change.uid)

    def _after(self, since: str) -> list[Change]:
        if not since.isdecimal():
            raise BadRequest(f"resourceVersion: is {since!r}, must be a decimal number")
        version = int(since)
        oldest = self._history[0].version if self._history else self.version + 1
        if not oldest - 1 <= version <= self.version:
            raise Gone(f"resourceVersion {since} is not in the history ({oldest - 1} to {self.version}): list again")
        return list(itertools.islice(self._history, version - oldest + 1, None))

    def __repr__(self) -> str:
        return f"Hub(version={self.version}, history={len(self._history)}, watchers={len(self._watchers)})"
