"""What a decision asks the runner to do. Each is safe to repeat: it names objects by uid or by deterministic name."""

from __future__ import annotations

from dataclasses import dataclass

from hekla.deployments.serving.model import Crash, UnitId


@dataclass(frozen=True)
class KeepRevision:
    """Write the current roles down before anything is made from them."""

    revision: str


@dataclass(frozen=True)
class DropRevision:
    """No group, and no protected ordinal, needs this revision any more."""

    revision: str


@dataclass(frozen=True)
class NewUnit:
    id: UnitId
    revision: str
    """Where its template comes from."""


@dataclass(frozen=True)
class CreateUnits:
    """Make the Engine objects of these role replicas, all or none. They start as Pending."""

    units: tuple[NewUnit, ...]


@dataclass(frozen=True)
class PlaceUnits:
    """Find room for these Pending role replicas together, and start them: all or none."""

    group: int
    units: tuple[UnitId, ...]


@dataclass(frozen=True)
class RetireUnit:
    """Drain (when it serves), stop and remove exactly these engines of a role replica."""

    id: UnitId
    uids: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class RestartEngine:
    """Start a failed engine again in its place, same object, same bundle."""

    name: str
    uid: str


@dataclass(frozen=True)
class Relabel:
    """Every role of the group has rolled: its engines carry the new revision from now on."""

    uids: tuple[str, ...]
    revision: str


@dataclass(frozen=True)
class DropFinalizer:
    """Nothing of the serving is left: let it go."""


Instruction = (
    KeepRevision | DropRevision | CreateUnits | PlaceUnits | RetireUnit | RestartEngine | Relabel | DropFinalizer
)


@dataclass(frozen=True)
class Plan:
    instructions: tuple[Instruction, ...] = ()
    crashes: tuple[tuple[str, Crash], ...] = ()
    """The crash records to keep from now on; what is not here is forgotten."""
    again_s: float | None = None
    """Decide once more after this many seconds, when a timer is due."""
