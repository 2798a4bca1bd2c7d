"""Which node each bundle of a gang goes to: all of them, or a `Shortage` that says why not.

Three plans are tried, each O(bundles × nodes) but the last:

1. *Packed*: group by group, largest first; a whole group on one node where one has room for it, else bundle by bundle,
   preferring nodes that the group is on already.
2. *Loose*: all bundles by size, whatever their group. Finds some placements that packing spoils.
3. *Matched*: each bundle on a node of its own, by augmenting paths (Kuhn 1955); finds one whenever there is one.
   Only for gangs up to `MATCHED_BUNDLES_MAX`, since it is O(bundles² × nodes).

Among nodes with room, the best fit wins: least left of the bundle's scarcest resource, and before that, no accelerator
on the node that the bundle does not ask for. Ties go by node id: the same snapshot gives the same plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hekla.platform.scheduling.model import (
    ACCELERATORS,
    BundleAsk,
    ClusterSnapshot,
    Gang,
    GroupAsk,
    NodeRoom,
    Placement,
    Units,
    units,
)
from hekla.platform.scheduling.shortage import Shortage, has_labels, shortage_of

MATCHED_BUNDLES_MAX = 128
"""Largest gang for which the matched plan is tried: with 1,000 nodes that is under 20 million steps at worst."""


@dataclass(frozen=True)
class _Item:
    """One bundle of the gang."""

    group: str
    index: int
    ask: BundleAsk
    asked: Units
    scarcest: str
    """An accelerator if it asks for one, else the resource of which it wants the largest part of the cluster."""
    share: float
    """That part."""


@dataclass(frozen=True)
class _Stuck:
    """The bundle that found no node, and what was free then."""

    item: _Item
    free: dict[str, dict[str, int]]
    placed: int


class _Board:
    """What is free while a plan is made, and the nodes chosen so far."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self.nodes = snapshot.nodes
        self.free = {node.node_id: dict(node.free) for node in snapshot.nodes}
        self.chosen: dict[tuple[str, int], str] = {}

    def fits(self, node: NodeRoom, asked: Units) -> bool:
        free = self.free[node.node_id]
        return all(free.get(name, 0) >= amount for name, amount in asked.items())

    def put(self, item: _Item, node_id: str) -> None:
        free = self.free[node_id]
        for name, amount in item.asked.items():
            free[name] -= amount
        self.chosen[item.group, item.index] = node_id

    def put_best(self, item: _Item, preferred: frozenset[str] = frozenset()) -> bool:
        """Put it on the best node with room, one of the preferred if there is one; False when there is none."""
        roomy = [node for node in self.nodes if has_labels(node, item.ask) and self.fits(node, item.asked)]
        if not roomy:
            return False
        best = min(roomy, key=lambda node: (node.node_id not in preferred, *self._leftover(node, item)))
        self.put(item, best.node_id)
        return True

    def put_together(self, items: Sequence[_Item]) -> bool:
        """Put all of them on the best node that has room for all; False when there is none."""
        whole: Counter[str] = Counter()
        for item in items:
            whole.update(item.asked)
        largest = items[0]
        roomy = [
            node for node in self.nodes if all(has_labels(node, item.ask) for item in items) and self.fits(node, whole)
        ]
        if not roomy:
            return False
        best = min(roomy, key=lambda node: self._leftover(node, largest))
        for item in items:
            self.put(item, best.node_id)
        return True

    def _leftover(self, node: NodeRoom, item: _Item) -> tuple[bool, float, float, str]:
        """Smaller is a better fit: a wasted accelerator, the scarcest resource's rest, everything's rest, the id."""
        free = self.free[node.node_id]
        wasted = any(free.get(name, 0) and name not in item.asked for name in ACCELERATORS)
        rest = {name: (free[name] - amount) / node.total[name] for name, amount in item.asked.items()}
        return wasted, rest[item.scarcest], sum(rest.values()), node.node_id


def plan(snapshot: ClusterSnapshot, gang: Gang) -> Placement | Shortage:
    """Nodes for every bundle of the gang, or why there are none. Changes nothing and never fails half-way."""
    items = _items(snapshot, gang)
    found = _place(snapshot, gang, items)
    if not isinstance(found, _Stuck):
        return found
    never = isinstance(_place(snapshot.emptied(), gang, items), _Stuck)
    item = found.item
    resource, missing, nodes = shortage_of(snapshot, found.free, item.ask)
    return Shortage(
        gang=gang.name,
        group=item.group,
        bundle=item.index,
        ask=item.ask,
        resource=resource,
        missing=missing,
        nodes=nodes,
        placed_before=found.placed,
        never=never,
    )


def _place(snapshot: ClusterSnapshot, gang: Gang, items: dict[str, list[_Item]]) -> Placement | _Stuck:
    packed = _packed(snapshot, items)
    if isinstance(packed, _Board):
        return _placement(gang, packed)
    for board in (_loose(snapshot, items), _matched(snapshot, items)):
        if board is not None:
            return _placement(gang, board)
    return packed


def _packed(snapshot: ClusterSnapshot, items: dict[str, list[_Item]]) -> _Board | _Stuck:
    board = _Board(snapshot)
    for group in sorted(items.values(), key=_group_size, reverse=True):
        if board.put_together(group):
            continue
        mine: frozenset[str] = frozenset()
        for item in group:
            if not board.put_best(item, mine):
                return _Stuck(item, board.free, len(board.chosen))
            mine |= {board.chosen[item.group, item.index]}
    return board


def _loose(snapshot: ClusterSnapshot, items: dict[str, list[_Item]]) -> _Board | None:
    board = _Board(snapshot)
    every = sorted((item for group in items.values() for item in group), key=_size, reverse=True)
    return board if all(board.put_best(item) for item in every) else None


def _matched(snapshot: ClusterSnapshot, items: dict[str, list[_Item]]) -> _Board | None:
    every = [item for group in items.values() for item in group]
    if len(every) > min(MATCHED_BUNDLES_MAX, len(snapshot.nodes)):
        return None
    board = _Board(snapshot)
    roomy = [
        [node.node_id for node in board.nodes if has_labels(node, item.ask) and board.fits(node, item.asked)]
        for item in every
    ]
    holder: dict[str, int] = {}
    if not all(_augment(index, roomy, holder, set()) for index in range(len(every))):
        return None
    for node_id, index in holder.items():
        board.put(every[index], node_id)
    return board


def _augment(index: int, roomy: list[list[str]], holder: dict[str, int], seen: set[str]) -> bool:
    """Give bundle `index` a node, moving others on if need be; depth is bounded by the number of bundles."""
    for node_id in roomy[index]:
        if node_id in seen:
            continue
        seen.add(node_id)
        if node_id not in holder or _augment(holder[node_id], roomy, holder, seen):
            holder[node_id] = index
            return True
    return False


def _items(snapshot: ClusterSnapshot, gang: Gang) -> dict[str, list[_Item]]:
    """The gang's bundles by group, each group's largest first."""
    cluster: Counter[str] = Counter()
    for node in snapshot.nodes:
        cluster.update(node.total)
    return {group.name: sorted(_group_items(group, cluster), key=_size, reverse=True) for group in gang.groups}


def _group_items(group: GroupAsk, cluster: Units) -> Iterable[_Item]:
    for index, ask in enumerate(group.bundles):
        asked = units(ask.resources)
        shares = {name: amount / max(1, cluster.get(name, 0)) for name, amount in sorted(asked.items())}
        scarcest = max(shares, key=lambda name: (name in ACCELERATORS, shares[name]))
        yield _Item(group.name, index, ask, asked, scarcest, shares[scarcest])


def _size(item: _Item) -> tuple[int, int, float, str, int]:
    """Accelerators first, then picky ones, then its share, then a fixed order (earlier bundles count as larger)."""
    return _accelerators(item), len(item.ask.node_labels), item.share, item.group, -item.index


def _group_size(group: Sequence[_Item]) -> tuple[int, float, str]:
    return sum(_accelerators(item) for item in group), sum(item.share for item in group), group[0].group


def _accelerators(item: _Item) -> int:
    return sum(amount for name, amount in item.asked.items() if name in ACCELERATORS)


def _placement(gang: Gang, board: _Board) -> Placement:
    return Placement(
        {
            group.name: tuple(board.chosen[group.name, index] for index in range(len(group.bundles)))
            for group in gang.groups
        }
    )
