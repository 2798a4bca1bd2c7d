"""The only place that touches names Ray does not promise to keep; checked against Ray 2.60.

Each function says what it needs, so that an upgrade of Ray is a review of this file.
"""

from __future__ import annotations

import re
from typing import Any

import ray
from ray._private import ray_constants, state
from ray.util.placement_group import PlacementGroup

# A placement group's share of a node is shown as extra resources (`CPU_group_0_<id>`, `bundle_group_<id>`), and each
# node has one resource named after its address. None of them is a quantity to plan with.
_NOT_A_QUANTITY = re.compile(r"^node:|^object_store_memory$|_group_[0-9a-f]{8,}$|_group_\d+_[0-9a-f]{8,}$")
_HEAD_MARK = "node:__internal_head__"


_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def allow_loopback(address: str) -> None:
    """Call before `ray.init(address)`. Ray on Linux replaces a loopback address by the machine's outer one, where a
    cluster that keeps to loopback can't be reached; on a Mac it does not. Its switch is read when it is imported."""
    if address.rpartition(":")[0] in _LOOPBACK:
        ray_constants.ENABLE_RAY_CLUSTER = False


def quantities(resources: dict[str, float]) -> dict[str, float]:
    """The resources a bundle can ask for, without Ray's internal ones."""
    return {name: float(amount) for name, amount in resources.items() if not _NOT_A_QUANTITY.search(name)}


def is_head(resources: dict[str, float]) -> bool:
    return _HEAD_MARK in resources


def available_by_node() -> dict[str, dict[str, float]]:
    """Free resources of each live node by hex id, as the head sees them (placement groups are deducted at once)."""
    found: dict[str, dict[str, float]] = state.available_resources_per_node()
    return {node: quantities(free) for node, free in found.items()}


def group_table() -> dict[str, dict[str, Any]]:
    """Every placement group by hex id, removed ones included."""
    found: dict[str, dict[str, Any]] = ray.util.placement_group_table()
    return found


def group_handle(group_id: str) -> PlacementGroup:
    """A handle of the group with that hex id; `get_placement_group` looks only into the caller's own namespace."""
    return PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group_id)))


def bundle_resources(entry: dict[str, Any], bundle: int) -> dict[str, float] | None:
    """What one bundle of a `group_table` entry reserves; None when the group has no such bundle."""
    found = entry["bundles"].get(bundle)
    return None if found is None else {name: float(amount) for name, amount in found.items()}
