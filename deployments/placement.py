"""Where engines go: role replicas as a gang, on nodes as they are less what is promised already. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hekla.platform.api.meta import Json
from hekla.platform.cluster.interface import Node
from hekla.platform.scheduling.model import BundleAsk, ClusterSnapshot, Gang, GroupAsk
from hekla.platform.scheduling.planner import plan
from hekla.platform.scheduling.shortage import Shortage


@dataclass(frozen=True)
class Share:
    """What one engine takes of one node."""

    node_id: str
    resources: Mapping[str, float]


PlacedUnit = tuple[Share, ...]
"""The shares of a role replica, its entry's first."""


def held_by(engines: Iterable[Json]) -> list[PlacedUnit]:
    """What engines with a placement group hold, whatever their phase: a group holds its room until it is removed."""
    return [
        (Share(engine["spec"]["node"], engine["spec"].get("resources") or {}),)
        for engine in engines
        if engine["spec"].get("placementGroup") and engine["spec"].get("node")
    ]


def nodes_with_room(nodes: Iterable[Node], held: Iterable[PlacedUnit]) -> list[Node]:
    """Nodes whose `available` is the lesser of what the cluster says and of the total less what is promised.

    The cluster's word comes late: a group made a moment ago is not in it yet, nor is one that is about to be made.
    """
    promised: dict[str, dict[str, float]] = {}
    for share in (share for unit in held for share in unit):
        on_node = promised.setdefault(share.node_id, {})
        for name, amount in share.resources.items():
            on_node[name] = on_node.get(name, 0.0) + amount
    return [replace(node, available=_room(node, promised.get(node.node_id, {}))) for node in nodes]


def _room(node: Node, promised: Mapping[str, float]) -> dict[str, float]:
    return {
        name: max(0.0, min(node.available.get(name, 0.0), total - promised.get(name, 0.0)))
        for name, total in node.total.items()
    }


def plan_units(
    nodes: Iterable[Node], held: Iterable[PlacedUnit], units: Sequence[Sequence[Json]]
) -> tuple[PlacedUnit, ...] | str:
    """A node for each engine of each role replica, all or none; or why there is no room."""
    names = [_unit_name(unit) for unit in units]
    spec = units[0][0]["spec"]
    try:
        asks = tuple(
            GroupAsk(name, tuple(BundleAsk(engine["spec"]["resources"]) for engine in unit))
            for name, unit in zip(names, units, strict=True)
        )
        found = plan(ClusterSnapshot.of(nodes_with_room(nodes, held)), Gang(f"{spec['serving']}-{spec['group']}", asks))
    except ValueError as error:
        return f"{names[0]} asks for what no node can give: {error}"
    if isinstance(found, Shortage):
        return found.explain()
    return tuple(_placed(unit, found.nodes[name]) for name, unit in zip(names, units, strict=True))


def _unit_name(unit: Sequence[Json]) -> str:
    return str(unit[0]["metadata"]["name"]).rpartition("-")[0]


def _placed(unit: Sequence[Json], nodes: Sequence[str]) -> PlacedUnit:
    return tuple(Share(node, engine["spec"]["resources"]) for engine, node in zip(unit, nodes, strict=True))
