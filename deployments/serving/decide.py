"""One decision about one ModelServing: failures, counts, rollout, placement, in that order. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hekla.deployments.serving.instructions import (
    CreateUnits,
    DropFinalizer,
    DropRevision,
    Instruction,
    KeepRevision,
    PlaceUnits,
    Plan,
    RetireUnit,
)
from hekla.deployments.serving.model import Group, Unit, UnitId, World
from hekla.deployments.serving.reading import groups_of
from hekla.deployments.serving.recovery import Recovery
from hekla.deployments.serving.rollout import relabel, roll
from hekla.deployments.serving.scaling import (
    retired,
    scale_down_groups,
    scale_down_roles,
    scale_up_groups,
    scale_up_roles,
)
from hekla.deployments.serving.wanted import group_roles

REASON_DELETED = "its ModelServing is being deleted"


def decide(world: World, now: float) -> Plan:
    """What to do now (`now`: Unix seconds) so that the world comes closer to what the serving asks."""
    groups = groups_of(world)
    if world.serving.is_deleting:
        return _take_down(groups)
    recovery = Recovery(world, now)
    recovery.run(groups)
    steps: list[Instruction] = [*_kept_revision(world), *recovery.instructions]
    groups = without_retired(groups, recovery.instructions)
    for scale_down in (scale_down_groups, scale_down_roles, roll):
        retirements = scale_down(world, groups)
        groups = without_retired(groups, retirements)
        steps += retirements
    steps += relabel(world, groups)
    steps += scale_up_groups(world, groups)
    steps += scale_up_roles(world, groups)
    steps += [step for group in groups for step in placements(world, group)]
    steps += _stale_revisions(world)
    again_s = min(recovery.timers) - now if recovery.timers else None
    return Plan(tuple(steps), tuple(sorted(recovery.crashes.items())), again_s)


def _take_down(groups: tuple[Group, ...]) -> Plan:
    if not groups:
        return Plan((DropFinalizer(),))
    units = [unit for group in groups for unit in group.units if not unit.is_retired]
    return Plan(tuple(retired(unit, REASON_DELETED) for unit in units))


def without_retired(groups: tuple[Group, ...], steps: Iterable[Instruction]) -> tuple[Group, ...]:
    """The groups as they are once these retirements have begun."""
    gone = {step.id for step in steps if isinstance(step, RetireUnit)}
    return tuple(
        replace(group, units=tuple(_retiring(unit) if unit.id in gone else unit for unit in group.units))
        for group in groups
    )


def _retiring(unit: Unit) -> Unit:
    return replace(unit, engines=tuple(replace(e, is_deleting=True, is_retired=True) for e in unit.engines))


def placements(world: World, group: Group) -> list[PlaceUnits]:
    """The gang first (what must start together), then each further role replica on its own."""
    waiting = [unit for unit in group.live if unit.is_pending]
    gang: list[UnitId] = []
    for role in group_roles(world, group, group.ordinal):
        least = min(role.replicas, world.serving.min_role_replicas.get(role.name, role.replicas))
        placed = sum(unit.id.role == role.name and not unit.is_pending for unit in group.live)
        pending = [unit.id for unit in waiting if unit.id.role == role.name]
        gang += pending[: max(0, least - placed)]
    if gang:
        return [PlaceUnits(group.ordinal, tuple(gang))]
    return [PlaceUnits(group.ordinal, (unit.id,)) for unit in waiting]


def _kept_revision(world: World) -> list[KeepRevision]:
    if world.serving.revision in world.revisions:
        return []
    return [KeepRevision(world.serving.revision)]


def _stale_revisions(world: World) -> list[DropRevision]:
    used = {world.serving.revision, world.current_revision, *(engine.revision for engine in world.engines)}
    return [DropRevision(revision) for revision in sorted(set(world.revisions) - used)]


def created(plan: Plan) -> list[UnitId]:
    """The role replicas a plan makes, for logs and tests."""
    return [unit.id for step in plan.instructions if isinstance(step, CreateUnits) for unit in step.units]
