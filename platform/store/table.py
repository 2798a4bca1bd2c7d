"""What a store keeps its objects in: rows, nested transactions, and the history of changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from hekla.platform.api.meta import Ref

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(frozen=True, slots=True)
class Change:
    """One version of the store: which object changed, and its text as of then."""

    version: int
    type: ChangeType
    kind: str
    uid: str
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """An object as text, with what the table is searched by."""

    ref: Ref
    uid: str
    owners: tuple[str, ...]
    text: str


class Table(Protocol):
    """Reads, writes, and transactions that nest: every `push` is ended by one `undo`, or else by `pop` when it is an
    inner one and by `commit` when it is the outermost. Writes happen inside a transaction only."""

    def get(self, ref: Ref) -> str | None:
        """The object's text."""

    def scan(self, kind: str, namespace: str | None) -> list[str]:
        """Texts of a kind by namespace, then name."""

    def owned_by(self, uid: str) -> list[Ref]:
        """Objects that name this uid as an owner, in order of their refs."""

    def has_uid(self, uid: str) -> bool:
        """True when an object with that uid is there."""

    def put(self, row: Row) -> None:
        """Add or replace."""

    def remove(self, ref: Ref) -> None:
        """Remove an object that is there."""

    def push(self) -> None:
        """Begin a transaction inside the current one, if any."""

    def pop(self) -> None:
        """End an inner transaction, keeping its writes."""

    def undo(self) -> None:
        """End the innermost transaction, outer or inner, and take its writes back."""

    def commit(self, changes: Sequence[Change]) -> None:
        """End the outermost transaction: its writes and these changes become durable together, or, when this
        raises, neither."""

    def history(self) -> list[Change]:
        """The newest changes, oldest first, without a gap."""

    def close(self) -> None:
        """Release what is held."""
