"""How many: gaps are filled from the lowest ordinal, and what costs least to lose goes first. Pure.

Nothing is renumbered: a survivor keeps its name. An ordinal whose old objects are still going away is waited for.
"""

from __future__ import annotations

from collections.abc import Iterator

from hekla.deployments.serving.instructions import CreateUnits, NewUnit, RetireUnit
from hekla.deployments.serving.model import Group, Role, Unit, UnitId, World
from hekla.deployments.serving.wanted import (
    group_revision,
    group_roles,
    is_available,
    is_protected,
    unit_revision,
)

REASON_SCALE = "scaled down"
REASON_ROLE_GONE = "its role left the spec"


def missing_ordinals(existing: set[int], blocked: set[int], wanted: int) -> list[int]:
    """The lowest free ordinals below `wanted` that bring the count to `wanted`; blocked ones are left for later.

    Ordinals above the range count towards having enough: they go by scaling down, not by making more.
    """
    need = max(0, wanted - len(existing))
    free = [ordinal for ordinal in range(wanted) if ordinal not in existing][:need]
    return [ordinal for ordinal in free if ordinal not in blocked]


def surplus_groups(world: World, groups: tuple[Group, ...]) -> list[Group]:
    """The groups to remove, in the order of removal."""
    live = [group for group in groups if not group.is_deleting]
    surplus = len(live) - world.serving.replicas

    def order(group: Group) -> tuple[bool, bool, int, int]:
        kept = is_protected(world, group.ordinal)
        return (kept, is_available(world, group), group.deletion_cost, -group.ordinal)

    return sorted(live, key=order)[: max(0, surplus)]


def surplus_units(world: World, role: Role, units: list[Unit]) -> list[Unit]:
    """The role replicas to remove, in the order of removal."""

    def order(unit: Unit) -> tuple[bool, bool, int, int]:
        is_kept = world.serving.rolls_by_role and unit.id.replica < role.partition
        return (is_kept, unit.is_running, unit.deletion_cost, -unit.id.replica)

    return sorted(units, key=order)[: max(0, len(units) - role.replicas)]


def retired(unit: Unit, reason: str) -> RetireUnit:
    return RetireUnit(unit.id, unit.uids, reason)


def scale_down_groups(world: World, groups: tuple[Group, ...]) -> list[RetireUnit]:
    return [
        retired(unit, REASON_SCALE)
        for group in surplus_groups(world, groups)
        for unit in group.units
        if not unit.is_retired
    ]


def scale_up_groups(world: World, groups: tuple[Group, ...]) -> list[CreateUnits]:
    existing = {group.ordinal for group in groups if not group.is_deleting}
    blocked = {group.ordinal for group in groups if group.is_deleting}
    made = []
    for ordinal in missing_ordinals(existing, blocked, world.serving.replicas):
        units = tuple(
            NewUnit(UnitId(ordinal, role.name, replica), unit_revision(world, None, ordinal, role, replica))
            for role in world.roles_at(group_revision(world, ordinal))
            for replica in range(role.replicas)
        )
        if units:
            made.append(CreateUnits(units))
    return made


def scale_down_roles(world: World, groups: tuple[Group, ...]) -> list[RetireUnit]:
    return [found for group in groups if not group.is_deleting for found in _surplus_in(world, group)]


def _surplus_in(world: World, group: Group) -> Iterator[RetireUnit]:
    roles = group_roles(world, group, group.ordinal)
    for role in roles:
        live = [unit for unit in group.live if unit.id.role == role.name]
        yield from (retired(unit, REASON_SCALE) for unit in surplus_units(world, role, live))
    names = {role.name for role in roles}
    yield from (retired(unit, REASON_ROLE_GONE) for unit in group.live if unit.id.role not in names)


def scale_up_roles(world: World, groups: tuple[Group, ...]) -> list[CreateUnits]:
    made = []
    for group in groups:
        units = () if group.is_deleting else tuple(_missing_in(world, group))
        if units:
            made.append(CreateUnits(units))
    return made


def _missing_in(world: World, group: Group) -> Iterator[NewUnit]:
    for role in group_roles(world, group, group.ordinal):
        units = group.units_of(role.name)
        existing = {unit.id.replica for unit in units if not unit.is_deleting}
        blocked = {unit.id.replica for unit in units if unit.is_deleting}
        for replica in missing_ordinals(existing, blocked, role.replicas):
            revision = unit_revision(world, group, group.ordinal, role, replica)
            yield NewUnit(UnitId(group.ordinal, role.name, replica), revision)
