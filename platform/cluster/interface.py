"""The cluster's interface; `tests/contracts/test_cluster.py` is its definition in full.

Ray enforces, we decide: a placement group's bundles name the node they must be on; nothing here chooses.
Resources are Ray's names and units: `CPU` cores, `GPU`, `NPU`, `memory` bytes, and any custom resource.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from hekla.platform.base.errors import Temporary


class ActorGone(Temporary):
    """The actor died or never was; `reason` says what the cluster knows."""


class NoRoom(Temporary):
    """The placement group could not be placed before the deadline; nothing of it remains."""


@dataclass(frozen=True)
class Node:
    node_id: str
    """Ray node id, hex."""
    name: str
    """Host name or address, for people."""
    address: str
    """IP that other nodes reach it by."""
    total: Mapping[str, float]
    available: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)
    is_head: bool = False


@dataclass(frozen=True)
class Bundle:
    resources: Mapping[str, float]
    node_id: str


@dataclass(frozen=True)
class ActorSpec:
    """A detached, named actor inside a bundle of a placement group.

    `target` is `module:Class`; the class is plain Python with async methods and is built with `kwargs` (JSON values).
    The class must not import Ray.
    """

    name: str
    target: str
    kwargs: Mapping[str, Any]
    placement_group: str
    bundle: int = 0
    env: Mapping[str, str] = field(default_factory=dict)


class Cluster(Protocol):
    async def nodes(self) -> list[Node]:
        """Alive nodes, by id."""

    async def create_placement_group(self, name: str, bundles: list[Bundle], timeout_s: float) -> None:
        """Create a detached, named group and wait until it is placed. Raises NoRoom (and leaves nothing), or
        ValueError when a group of that name exists."""

    async def remove_placement_group(self, name: str) -> None:
        """Remove it with every actor in it. No error when there is none."""

    async def placement_groups(self) -> set[str]:
        """Names of this platform's groups that exist."""

    async def start_actor(self, spec: ActorSpec) -> None:
        """Start it; returns when the cluster accepted it, before its constructor ran. ValueError: the name is taken."""

    async def stop_actor(self, name: str) -> None:
        """Kill it. No error when there is none."""

    async def actors(self) -> set[str]:
        """Names of this platform's actors that are alive or starting."""

    async def call(self, name: str, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        """Call an actor's method. Raises ActorGone, Unavailable (timeout), or what the method raised."""
