"""The store's interface; `tests/contracts/test_store.py` is its definition in full.

Rules (Kubernetes'): every write gives the object the next `resourceVersion` of the whole store; `metadata.generation`
grows only when `spec` changes; an update that carries a `resourceVersion` other than the current one is a Conflict;
deleting an object that has finalizers only sets `deletionTimestamp`, and it goes when the last finalizer does; when an
owner goes, what it owns (by uid, controller or not, when no other owner remains) is deleted too. The store neither
validates nor defaults: that is admission's job (`hekla.platform.api.admission`).

All methods are synchronous and quick (well under a millisecond but for the commit itself), and take and return deep
copies: nothing a caller changes reaches the store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from hekla.platform.api.meta import Json, Ref


@dataclass(frozen=True)
class Listing:
    items: list[Json]
    resource_version: str
    """Start a watch here to miss nothing."""


@dataclass(frozen=True)
class WatchEvent:
    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: Json
    """The object as of this event; for DELETED its last state with the deletion's resourceVersion; for BOOKMARK only
    `{"kind", "metadata": {"resourceVersion"}}`."""


class Watch(Protocol):
    """One reader's events, an async iterator; `anext` may be cancelled and called again without losing any."""

    def __aiter__(self) -> AsyncIterator[WatchEvent]:
        """Itself."""

    async def __anext__(self) -> WatchEvent:
        """Raises Gone when the reader fell too far behind."""

    @property
    def pending(self) -> int:
        """Events that wait to be read; a Gone that is to be raised counts as one."""

    def bookmark(self) -> None:
        """Queue a BOOKMARK of the store's current version, behind every event up to it. A watch whose kinds stay
        quiet while others change gets one by itself from time to time."""

    def end(self) -> None:
        """End the watch after what is queued."""

    async def aclose(self) -> None:
        """End the watch at once; what is queued is dropped."""


class Store(Protocol):
    def create(self, obj: Json) -> Json:
        """Add an object; fills uid, generation 1, resourceVersion, creationTimestamp; a status that is given is kept.
        Raises AlreadyExists, Conflict (every owner it names was deleted)."""

    def get(self, ref: Ref) -> Json:
        """Raises NotFound."""

    def list(self, kind: str, namespace: str | None = None, labels: dict[str, str] | None = None) -> Listing:
        """Objects of a kind by namespace then name; all namespaces when None."""

    def update(self, obj: Json) -> Json:
        """Replace metadata (what is writable) and spec; status stays. A no-op update keeps the resourceVersion.
        Removing the last finalizer of an object that is marked for deletion deletes it.
        Raises NotFound, Conflict (stale resourceVersion, or another uid), Invalid (a new finalizer while deleting)."""

    def update_status(self, obj: Json) -> Json:
        """Replace only status. Raises NotFound, Conflict."""

    def delete(self, ref: Ref, uid: str | None = None) -> Json:
        """Delete, or mark for deletion when finalizers remain. Raises NotFound, Conflict (another uid)."""

    def transaction(self) -> AbstractContextManager[None]:
        """Writes inside become durable and visible to watchers together, or not at all when the block raises.
        Nests: an inner block that raises takes back only its own writes. No `await` inside."""

    def watch(self, kinds: tuple[str, ...], since: str | None = None) -> Watch:
        """Events of these kinds (all when empty) with resourceVersion > `since`; None: from now on.
        Raises Gone when `since` is older than the history, or when the watcher falls too far behind.
        The subscription begins at the call, before the first `anext`."""

    def close(self) -> None:
        """Release files; watchers end."""
