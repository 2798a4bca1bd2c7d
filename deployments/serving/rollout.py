"""Rolling updates: the old is removed within a budget, and scaling makes the new in its place. No surge. Pure.

What does not run costs nothing to replace, so it goes first and without limit: a bad revision can always be mended.
"""

from __future__ import annotations

from hekla.deployments.serving.instructions import Relabel, RetireUnit
from hekla.deployments.serving.model import Group, Role, Unit, World
from hekla.deployments.serving.scaling import retired
from hekla.deployments.serving.wanted import is_available, is_outdated_unit, is_protected, is_updated

REASON_ROLL = "replaced by a newer revision"


def roll(world: World, groups: tuple[Group, ...]) -> list[RetireUnit]:
    """The role replicas to remove now so that the new revision can take their place."""
    if world.serving.rolls_by_role:
        live = [group for group in groups if not group.is_deleting]
        return [step for group in live for role in world.serving.roles for step in _roll_role(world, group, role)]
    return [
        retired(unit, REASON_ROLL)
        for group in _groups_to_roll(world, groups)
        for unit in group.units
        if not unit.is_retired
    ]


def _groups_to_roll(world: World, groups: tuple[Group, ...]) -> list[Group]:
    live = [group for group in groups if not group.is_deleting]
    available = [group for group in live if is_available(world, group)]
    outdated = [g for g in live if not is_protected(world, g.ordinal) and not is_updated(world, g)]
    idle = [group for group in outdated if group not in available]
    budget = world.serving.max_unavailable - (world.serving.replicas - len(available))
    serving = sorted((g for g in outdated if g in available), key=lambda group: -group.ordinal)
    return [*idle, *serving[: max(0, budget)]]


def _roll_role(world: World, group: Group, role: Role) -> list[RetireUnit]:
    live = [unit for unit in group.live if unit.id.role == role.name]
    running = [unit for unit in live if unit.is_running]
    outdated = [unit for unit in live if unit.id.replica >= role.partition and is_outdated_unit(world, unit)]
    idle = [unit for unit in outdated if not unit.is_running]
    budget = role.max_unavailable - (role.replicas - len(running))
    serving = sorted((unit for unit in outdated if unit.is_running), key=_highest_first)
    return [retired(unit, REASON_ROLL) for unit in [*idle, *serving[: max(0, budget)]]]


def _highest_first(unit: Unit) -> int:
    return -unit.id.replica


def relabel(world: World, groups: tuple[Group, ...]) -> list[Relabel]:
    """Groups in which every role has rolled take the new revision's label, untouched roles included."""
    if not world.serving.rolls_by_role:
        return []
    found = []
    for group in groups:
        stale = tuple(e.uid for unit in group.live for e in unit.engines if e.revision != world.serving.revision)
        if stale and is_updated(world, group):
            found.append(Relabel(stale, world.serving.revision))
    return found
