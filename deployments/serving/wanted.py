"""What each group should consist of, and whether it does. Pure."""

from __future__ import annotations

from hekla.deployments.serving.model import Group, Role, Unit, World


def group_revision(world: World, ordinal: int) -> str:
    """The revision a group of this ordinal is made from when it has to be made now."""
    if not world.serving.rolls_by_role and ordinal < world.serving.partition:
        return world.current_revision
    return world.serving.revision


def group_roles(world: World, group: Group | None, ordinal: int) -> tuple[Role, ...]:
    """The roles a group should have. While groups roll as a whole, an old group keeps the roles of its revision."""
    if world.serving.rolls_by_role:
        return world.serving.roles
    return world.roles_at(group.revision if group else group_revision(world, ordinal))


def unit_revision(world: World, group: Group | None, ordinal: int, role: Role, replica: int) -> str:
    """Where the template of a role replica comes from when it has to be made now."""
    if not world.serving.rolls_by_role:
        return group.revision if group else group_revision(world, ordinal)
    is_known = any(old.name == role.name for old in world.roles_at(world.current_revision))
    return world.current_revision if replica < role.partition and is_known else world.serving.revision


def is_available(world: World, group: Group) -> bool:
    """Every role has as many running role replicas as the spec asks: a group that scales or heals is not available."""
    for role in group_roles(world, group, group.ordinal):
        if sum(unit.is_running for unit in group.units_of(role.name)) < role.replicas:
            return False
    return not group.is_deleting


def is_outdated_unit(world: World, unit: Unit) -> bool:
    role = world.serving.role(unit.id.role)
    return role is None or unit.role_hash != role.hash


def is_updated(world: World, group: Group) -> bool:
    """Nothing in the group is of an older revision."""
    if world.serving.rolls_by_role:
        return not any(is_outdated_unit(world, unit) for unit in group.live)
    return all(unit.revision == world.serving.revision for unit in group.live)


def is_protected(world: World, ordinal: int) -> bool:
    """A partition keeps the group as it is."""
    return not world.serving.rolls_by_role and ordinal < world.serving.partition
