"""What is free on each node of the in-memory cluster, counted in Ray's ten-thousandths so that sums are exact."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from hekla.platform.cluster.checks import GRANULARITY
from hekla.platform.cluster.interface import Bundle, Node


class Ledger:
    """Nodes and what of them is taken. What a node starts with as `available` is what can be taken of it."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes: dict[str, Node] = {}
        self._free: dict[str, dict[str, int]] = {}
        for node in nodes:
            self.add(node)

    def add(self, node: Node) -> None:
        if node.node_id in self._nodes:
            raise ValueError(f"node {node.node_id!r} is there already")
        self._nodes[node.node_id] = node
        self._free[node.node_id] = _units(node.available)

    def remove(self, node_id: str) -> None:
        if self._nodes.pop(node_id, None) is None:
            raise ValueError(f"there is no node {node_id!r}; nodes: {', '.join(sorted(self._nodes)) or 'none'}")
        del self._free[node_id]

    def has(self, node_id: str) -> bool:
        return node_id in self._nodes

    def nodes(self) -> list[Node]:
        return [
            replace(node, available={name: units / GRANULARITY for name, units in self._free[node_id].items()})
            for node_id, node in sorted(self._nodes.items())
        ]

    def take(self, bundles: Sequence[Bundle]) -> bool:
        """Reserve all of the bundles, or nothing: False when a node is missing or too full."""
        asked: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for bundle in bundles:
            for name, units in _units(bundle.resources).items():
                asked[bundle.node_id][name] += units
        fits = all(
            node_id in self._free and all(self._free[node_id].get(name, 0) >= units for name, units in of_node.items())
            for node_id, of_node in asked.items()
        )
        if fits:
            for node_id, of_node in asked.items():
                for name, units in of_node.items():
                    self._free[node_id][name] -= units
        return fits

    def give_back(self, bundles: Iterable[Bundle]) -> None:
        """Free the bundles on the nodes that are still there."""
        for bundle in bundles:
            for name, units in _units(bundle.resources).items():
                if bundle.node_id in self._free:
                    self._free[bundle.node_id][name] += units

    def check(self) -> None:
        """Assert that nothing is taken twice and nothing is given back that was not taken."""
        for node_id, node in self._nodes.items():
            whole = _units(node.available)
            for name, units in self._free[node_id].items():
                assert 0 <= units <= whole[name], f"node {node_id}: {units} of {whole[name]} units of {name} free"


def _units(resources: Mapping[str, float]) -> dict[str, int]:
    return {name: round(amount * GRANULARITY) for name, amount in resources.items()}
