"""What the planner sees and what it answers. Plain values: a plan is a function of them and of nothing else.

Seams, for what comes on top of this planner (each is a field that the planner passes on or can honour later):

- `Gang.queue`, `Gang.priority`: admission by queue happens before planning; the planner never reads them.
- `NodeRoom.labels`: racks and other levels of the HyperNode tree are labels, so a topology domain is a set of nodes;
  plan on `ClusterSnapshot.only(...)` of one domain after the other, from the lowest tier up.
- `ClusterSnapshot.only(node_ids)`: also the seam for shards, which are sets of nodes as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

UNITS_PER_ONE = 10_000
"""Resources are counted in whole ten-thousandths, as Ray does, so that sums are exact."""

ACCELERATORS = frozenset(
    {"GPU", "NPU", "TPU", "HPU", "neuron_cores", "AMD_GPU", "RBLN", "FURIOSA", "METAX_GPU", "MBLT", "TTNPU"}
)
"""Devices worth keeping free for work that needs them; the names are Ray's."""

Units = Mapping[str, int]
"""Resource name to ten-thousandths."""


class NodeLike(Protocol):
    """What the planner takes from a node; the cluster's `Node` has it."""

    @property
    def node_id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def total(self) -> Mapping[str, float]: ...
    @property
    def available(self) -> Mapping[str, float]: ...
    @property
    def labels(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class NodeRoom:
    node_id: str
    name: str
    total: Units
    free: Units
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ClusterSnapshot:
    """Nodes in the order of their ids."""

    nodes: tuple[NodeRoom, ...]

    @classmethod
    def of(cls, nodes: Iterable[NodeLike]) -> ClusterSnapshot:
        rooms = (
            NodeRoom(node.node_id, node.name, units(node.total), units(node.available), dict(node.labels))
            for node in nodes
        )
        return cls(tuple(sorted(rooms, key=lambda room: room.node_id)))

    def only(self, node_ids: Collection[str]) -> ClusterSnapshot:
        """The same without every other node."""
        return ClusterSnapshot(tuple(node for node in self.nodes if node.node_id in node_ids))

    def emptied(self) -> ClusterSnapshot:
        """The same cluster with nothing on it."""
        return ClusterSnapshot(
            tuple(NodeRoom(node.node_id, node.name, node.total, node.total, node.labels) for node in self.nodes)
        )


@dataclass(frozen=True)
class BundleAsk:
    """One bundle: resources that must be free together on one node which carries these labels."""

    resources: Mapping[str, float]
    node_labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, amount in self.resources.items():
            if not 0 <= amount < float("inf"):
                raise ValueError(f"resources[{name!r}]: {amount!r} given, a number of at least 0 allowed")
            if name in ACCELERATORS and amount > 1 and amount != int(amount):
                raise ValueError(f"resources[{name!r}]: {amount!r} given; above 1, whole devices only")
        if not any(units(self.resources).values()):
            raise ValueError("resources: nothing asked for; a bundle needs at least one resource above 0")


@dataclass(frozen=True)
class GroupAsk:
    """One placement group: a role replica, its entry's bundle first."""

    name: str
    bundles: tuple[BundleAsk, ...]


@dataclass(frozen=True)
class Gang:
    """Placement groups that start together or not at all: a serving group."""

    name: str
    groups: tuple[GroupAsk, ...]
    queue: str = ""
    priority: int = 0

    def __post_init__(self) -> None:
        names = [group.name for group in self.groups]
        if len(set(names)) < len(names):
            raise ValueError(f"gang {self.name!r}: group names must differ, given {names}")
        if empty := [group.name for group in self.groups if not group.bundles]:
            raise ValueError(f"gang {self.name!r}: groups without a bundle: {empty}")


@dataclass(frozen=True)
class Placement:
    """A node id for each bundle of each group, in the order of the group's bundles."""

    nodes: Mapping[str, tuple[str, ...]]


def units(resources: Mapping[str, float]) -> dict[str, int]:
    """Whole ten-thousandths; what rounds to nothing is left out."""
    counted = {name: round(amount * UNITS_PER_ONE) for name, amount in resources.items()}
    return {name: amount for name, amount in counted.items() if amount}


def amount_text(resource: str, counted: int) -> str:
    """`2 GPU`, `0.5 CPU`, `16 GiB memory`: for people."""
    amount = counted / UNITS_PER_ONE
    if resource == "memory":
        return f"{amount / 2**30:.4g} GiB memory"
    return f"{amount:g} {resource}"
