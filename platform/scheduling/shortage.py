"""Why a gang can't be placed, said so that its owner knows what to do."""

from __future__ import annotations

from dataclasses import dataclass

from hekla.platform.scheduling.model import BundleAsk, ClusterSnapshot, NodeRoom, Units, amount_text, units

NODES_NAMED_MAX = 8
"""Nodes that an explanation lists; the rest are counted."""


@dataclass(frozen=True)
class NodeShort:
    """One node's part: what it has free of the short resource, and whether its labels fit."""

    name: str
    free: int
    total: int
    labels_fit: bool


@dataclass(frozen=True)
class Shortage:
    """The first bundle that found no node. Amounts are ten-thousandths, as in the snapshot.

    `never`: the gang would not fit if the cluster were empty; waiting can't help, only nodes can.
    """

    gang: str
    group: str
    bundle: int
    ask: BundleAsk
    resource: str
    """What is short on the node that comes closest; empty when no node has the labels."""
    missing: int
    """How much of it that node would need more."""
    nodes: tuple[NodeShort, ...]
    placed_before: int
    """Bundles of the same gang whose room was already set aside when this one found none."""
    never: bool

    def explain(self) -> str:
        """`needs 2 GPU in one bundle; node a has 1 free of 8, node b has 0 of 8; cluster total free 1`, and which."""
        verdict = "will never fit this cluster" if self.never else "does not fit now"
        where = f"gang {self.gang} {verdict}: bundle {self.bundle} of group {self.group}"
        if not self.resource:
            wanted = ", ".join(f"{key}={value}" for key, value in sorted(self.ask.node_labels.items()))
            return f"{where} needs a node with labels {wanted}; {len(self.nodes)} nodes, none has them"
        others = f" beside {self.placed_before} other bundles of the gang" if self.placed_before else ""
        asked = amount_text(self.resource, units(self.ask.resources)[self.resource])
        return (
            f"{where} needs {asked} in one bundle{others}; {self._node_list()}; "
            f"cluster total free {self._quantity(sum(node.free for node in self.nodes))}"
        )

    def _node_list(self) -> str:
        if not self.nodes:
            return "there are no nodes"
        said = [self._node(node) for node in self.nodes[:NODES_NAMED_MAX]]
        if (more := len(self.nodes) - NODES_NAMED_MAX) > 0:
            said.append(f"and {more} more nodes")
        return ", ".join(said)

    def _node(self, node: NodeShort) -> str:
        free = f"node {node.name} has {self._quantity(node.free)} free of {self._quantity(node.total)}"
        return free if node.labels_fit else f"{free} but not the labels"

    def _quantity(self, counted: int) -> str:
        return amount_text(self.resource, counted).removesuffix(f" {self.resource}")


def shortage_of(
    snapshot: ClusterSnapshot, free: dict[str, dict[str, int]], ask: BundleAsk
) -> tuple[str, int, tuple[NodeShort, ...]]:
    """The short resource, how much is missing on the closest node, and every node's part in it."""
    fitting = [node for node in snapshot.nodes if has_labels(node, ask)]
    if snapshot.nodes and not fitting:
        return "", 0, tuple(NodeShort(node.name, 0, 0, labels_fit=False) for node in snapshot.nodes)
    asked = units(ask.resources)
    closest = min((_missing(asked, free[node.node_id]) for node in fitting), key=_severity, default=dict(asked))
    resource = max(sorted(closest), key=lambda name: closest[name] / asked[name])
    shorts = tuple(
        NodeShort(node.name, free[node.node_id].get(resource, 0), node.total.get(resource, 0), has_labels(node, ask))
        for node in snapshot.nodes
    )
    return resource, closest[resource], shorts


def has_labels(node: NodeRoom, ask: BundleAsk) -> bool:
    return all(node.labels.get(key) == value for key, value in ask.node_labels.items())


def _missing(asked: Units, free: Units) -> dict[str, int]:
    return {name: amount - free.get(name, 0) for name, amount in asked.items() if amount > free.get(name, 0)}


def _severity(missing: Units) -> tuple[int, int]:
    return len(missing), sum(missing.values())
