"""The nouns the decisions are about: what is asked (`Serving`, `Role`) and what is there (`Engine`, `Unit`, `Group`).

A *unit* is a role replica: one entry engine and its workers in one placement group. Everything here is frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hekla.platform.api.meta import Json

BROKEN_PHASES = frozenset({"Failed", "Stopped"})
STARTED_PHASES = frozenset({"Starting", "Fetching", "Loading", "Ready", "Draining"})


@dataclass(frozen=True, order=True)
class UnitId:
    group: int
    role: str
    replica: int

    def __str__(self) -> str:
        return f"{self.group}/{self.role}/{self.replica}"


@dataclass(frozen=True)
class Role:
    name: str
    replicas: int
    worker_replicas: int
    hash: str
    max_unavailable: int
    partition: int
    """Role replicas below this ordinal keep the old revision (RoleRollingUpdate)."""

    @property
    def unit_size(self) -> int:
        return 1 + self.worker_replicas


@dataclass(frozen=True)
class Serving:
    namespace: str
    name: str
    uid: str
    generation: int
    replicas: int
    roles: tuple[Role, ...]
    revision: str
    """Of the roles as the spec has them now."""
    rolls_by_role: bool
    max_unavailable: int
    partition: int
    """Groups below this ordinal keep the old revision (ServingGroupRollingUpdate)."""
    recovery: str
    grace_s: float
    min_role_replicas: Mapping[str, int] = field(default_factory=dict)
    """Role replicas that must start together; a role not named: all of them."""
    is_deleting: bool = False

    def role(self, name: str) -> Role | None:
        return next((role for role in self.roles if role.name == name), None)


@dataclass(frozen=True)
class Engine:
    name: str
    uid: str
    unit: UnitId
    index: int
    revision: str
    role_hash: str
    phase: str
    node: str = ""
    failed_at: float | None = None
    """Unix seconds since when it has not been ready after a failure."""
    is_deleting: bool = False
    is_retired: bool = False
    """hekla itself decided to delete it."""
    deletion_cost: int = 0
    message: str = ""

    @property
    def is_broken(self) -> bool:
        return self.phase in BROKEN_PHASES

    @property
    def is_placed(self) -> bool:
        return self.phase != "Pending"


@dataclass(frozen=True)
class Unit:
    id: UnitId
    engines: tuple[Engine, ...]
    """By index."""
    size: int
    """How many engines it is meant to have."""

    @property
    def uids(self) -> tuple[str, ...]:
        return tuple(engine.uid for engine in self.engines)

    @property
    def role_hash(self) -> str:
        return self.engines[0].role_hash

    @property
    def revision(self) -> str:
        return self.engines[0].revision

    @property
    def is_retired(self) -> bool:
        """On its way out because hekla decided so."""
        return any(engine.is_retired for engine in self.engines)

    @property
    def is_deleting(self) -> bool:
        return any(engine.is_deleting for engine in self.engines)

    @property
    def is_damaged(self) -> bool:
        """Somebody else removed a part of it, or all."""
        return not self.is_retired and (self.is_deleting or len(self.engines) < self.size)

    @property
    def is_running(self) -> bool:
        complete = len(self.engines) == self.size and not self.is_deleting
        return complete and all(engine.phase == "Ready" for engine in self.engines)

    @property
    def is_pending(self) -> bool:
        return not self.is_deleting and any(not engine.is_placed for engine in self.engines)

    @property
    def deletion_cost(self) -> int:
        return sum(engine.deletion_cost for engine in self.engines)


@dataclass(frozen=True)
class Group:
    ordinal: int
    units: tuple[Unit, ...]

    @property
    def live(self) -> tuple[Unit, ...]:
        return tuple(unit for unit in self.units if not unit.is_deleting)

    @property
    def is_deleting(self) -> bool:
        """Every unit is on its way out."""
        return not self.live

    @property
    def revision(self) -> str:
        """The revision it was made at: that of most of its live units, the older one first when a role has rolled."""
        revisions = [unit.revision for unit in self.live or self.units]
        return max(sorted(set(revisions)), key=revisions.count)

    @property
    def deletion_cost(self) -> int:
        return sum(unit.deletion_cost for unit in self.units)

    def units_of(self, role: str) -> tuple[Unit, ...]:
        return tuple(unit for unit in self.units if unit.id.role == role)


@dataclass(frozen=True)
class Crash:
    """How often a unit (or a group, when the policy recreates it whole) has failed lately."""

    failures: int
    last_s: float
    """Unix seconds of the last time something was done about it."""


@dataclass(frozen=True)
class World:
    """Everything a decision about one ModelServing may look at."""

    serving: Serving
    engines: tuple[Engine, ...]
    current_revision: str
    """The revision that partition-protected ordinals are made from; the update revision when there is no older one."""
    revisions: Mapping[str, tuple[Role, ...]]
    """Roles of each kept revision, its own worker counts and hashes, the current spec's replica counts."""
    crashes: Mapping[str, Crash] = field(default_factory=dict)
    alive_nodes: frozenset[str] = frozenset()

    def roles_at(self, revision: str) -> tuple[Role, ...]:
        return self.revisions.get(revision, self.serving.roles)


def revision_roles(obj: Json) -> list[Json]:
    """`spec.template.roles` of a ModelServing."""
    roles: list[Json] = obj["spec"]["template"]["roles"]
    return roles
