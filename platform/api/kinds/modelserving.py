"""ModelServing: serving groups of roles. A group is a gang; a role replica is one entry and its workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from hekla.platform.api.meta import ApiModel, Json
from hekla.platform.api.names import dns_1035_problem, pod_name_problem
from hekla.platform.api.podtemplate import PodTemplate
from hekla.platform.api.registry import Column, Kind
from hekla.platform.api.values import INT32_MAX, FreeObject, IntOrPercent, resolve_int_or_percent
from hekla.platform.base.errors import FieldError

ROLES_MAX = 4
ROLE_NAME_CHARS_MAX = 12

RolloutType = Literal["ServingGroupRollingUpdate", "RoleRollingUpdate"]
RecoveryPolicy = Literal["RoleRecreate", "ServingGroupRecreate", "None"]


class PluginScope(ApiModel):
    roles: list[str] = Field(default_factory=list)
    """Roles whose pods the plugin sees; empty: all."""
    target: Literal["All", "Entry", "Worker"] = "All"


class Plugin(ApiModel):
    """Something that changes each engine's template before it starts."""

    name: str = Field(min_length=1)
    type: Literal["BuiltIn"] = "BuiltIn"
    config: FreeObject | None = None
    """The plugin's own settings."""
    scope: PluginScope | None = None
    """Unset: everything."""


class GangPolicy(ApiModel):
    min_role_replicas: dict[str, int] | None = None
    """Role replicas that must be placed together, by role; immutable once set. Unset: all of them."""


class TopologyPolicy(ApiModel):
    """How close together, in tiers of the HyperNode tree."""

    mode: Literal["hard", "soft"] = "hard"
    """`hard`: wait rather than spread wider; `soft`: prefer."""
    highest_tier_allowed: int | None = Field(default=None, ge=0, le=INT32_MAX)
    """The widest tier that may hold it all, by number."""
    highest_tier_name: str | None = Field(default=None, max_length=253)
    """The same by name; not both."""


class NetworkTopology(ApiModel):
    group_policy: TopologyPolicy | None = None
    """For the whole serving group."""
    role_policy: TopologyPolicy | None = None
    """For each role replica."""


class Role(ApiModel):
    name: str
    """At most 12 characters, DNS-1035, unique in the template."""
    replicas: int = Field(default=1, ge=0, le=INT32_MAX)
    """Role replicas in each serving group."""
    entry_template: PodTemplate
    worker_replicas: int = Field(ge=0, le=INT32_MAX)
    """Workers beside the entry of each role replica."""
    worker_template: PodTemplate | None = None
    """Needed when there are workers."""
    max_unavailable: IntOrPercent = 1
    """Only for RoleRollingUpdate; a percentage rounds down."""
    partition: IntOrPercent | None = None
    """Only for RoleRollingUpdate: role replicas with a lower ordinal keep the old revision; a percentage rounds up."""

    @property
    def group_size(self) -> int:
        """Processes of one role replica: `GROUP_SIZE`."""
        return 1 + self.worker_replicas

    def max_unavailable_count(self) -> int:
        return resolve_int_or_percent(self.max_unavailable, self.replicas, round_up=False)

    def partition_ordinal(self) -> int:
        return resolve_int_or_percent(self.partition or 0, self.replicas, round_up=True)


class ServingTemplate(ApiModel):
    restart_grace_period_seconds: int = Field(default=0, ge=0)
    """Seconds a broken pod has to become ready again before it is replaced."""
    gang_policy: GangPolicy | None = None
    network_topology: NetworkTopology | None = None
    """How close together engines are placed. Not yet: the status names it in `IgnoredOnRay`."""
    roles: list[Role] = Field(min_length=1, max_length=ROLES_MAX)


class RollingUpdateConfiguration(ApiModel):
    max_unavailable: IntOrPercent = 1
    """Serving groups that may be away during a rollout; a percentage rounds down."""
    partition: IntOrPercent | None = None
    """Serving groups with a lower ordinal keep the old revision; a percentage rounds up."""


class RolloutStrategy(ApiModel):
    type: RolloutType = "ServingGroupRollingUpdate"
    rolling_update_configuration: RollingUpdateConfiguration | None = None
    """Only for ServingGroupRollingUpdate."""


class ModelServingSpec(ApiModel):
    replicas: int = Field(default=1, ge=0, le=INT32_MAX)
    """Serving groups."""
    scheduler_name: str = "volcano"
    """The Kubernetes scheduler of the pods; on Ray hekla's planner places everything."""
    plugins: list[Plugin] = Field(default_factory=list)
    """Applied in this order. Not yet: the status names them in `IgnoredOnRay`."""
    template: ServingTemplate
    rollout_strategy: RolloutStrategy = Field(default_factory=RolloutStrategy)
    recovery_policy: RecoveryPolicy = "RoleRecreate"
    """What is replaced when an engine fails: its role replica, its whole serving group, or nothing."""

    @property
    def roles(self) -> list[Role]:
        return self.template.roles

    def role(self, name: str) -> Role:
        """The role of that name; KeyError when there is none."""
        for role in self.template.roles:
            if role.name == name:
                return role
        raise KeyError(name)

    def gang_replicas(self, role: Role) -> int:
        """Replicas of a role that must be placed together with the rest of their group."""
        policy = self.template.gang_policy
        wanted = policy.min_role_replicas if policy else None
        return role.replicas if wanted is None else min(wanted.get(role.name, role.replicas), role.replicas)

    def max_unavailable_count(self) -> int:
        """Serving groups that may be away during a rollout."""
        rolling = self.rollout_strategy.rolling_update_configuration or RollingUpdateConfiguration()
        return resolve_int_or_percent(rolling.max_unavailable, self.replicas, round_up=False)

    def partition_ordinal(self) -> int:
        """The first ordinal of a serving group that a rollout may touch."""
        rolling = self.rollout_strategy.rolling_update_configuration or RollingUpdateConfiguration()
        return resolve_int_or_percent(rolling.partition or 0, self.replicas, round_up=True)


def check(new: Json, old: Json | None) -> list[FieldError]:
    spec = ModelServingSpec.model_validate(new["spec"])
    return [
        *_role_problems(spec, new["metadata"].get("name") or ""),
        *_topology_problems(spec),
        *_gang_problems(spec, old),
        *_rollout_problems(spec),
    ]


def _role_problems(spec: ModelServingSpec, serving: str) -> Iterator[FieldError]:
    uses = Counter(role.name for role in spec.roles)
    for index, role in enumerate(spec.roles):
        path = f"spec.template.roles[{index}]"
        if uses[role.name] > 1:
            yield FieldError(f"{path}.name", f'"{role.name}" is used {uses[role.name]} times; allowed: unique names')
        if problem := dns_1035_problem(role.name, ROLE_NAME_CHARS_MAX):
            yield FieldError(f"{path}.name", problem)
        else:
            parts = (serving, spec.replicas, role.name, role.replicas, role.worker_replicas)
            if serving and (problem := pod_name_problem(parts)):
                yield FieldError("metadata.name", f"for role {role.name}, {problem}")
        if role.worker_template is None and role.worker_replicas > 0:
            problem = f"required, because workerReplicas is {role.worker_replicas}; allowed: a pod template"
            yield FieldError(f"{path}.workerTemplate", problem)


def _topology_problems(spec: ModelServingSpec) -> Iterator[FieldError]:
    topology = spec.template.network_topology or NetworkTopology()
    for name, policy in (("groupPolicy", topology.group_policy), ("rolePolicy", topology.role_policy)):
        if policy and policy.highest_tier_allowed is not None and policy.highest_tier_name is not None:
            problem = "highestTierAllowed and highestTierName are both set; allowed: at most one of them"
            yield FieldError(f"spec.template.networkTopology.{name}", problem)


def _gang_problems(spec: ModelServingSpec, old: Json | None) -> Iterator[FieldError]:
    path = "spec.template.gangPolicy.minRoleReplicas"
    policy = spec.template.gang_policy
    wanted = policy.min_role_replicas if policy else None
    replicas = {role.name: role.replicas for role in spec.roles}
    for name, count in (wanted or {}).items():
        if name not in replicas:
            yield FieldError(f"{path}.{name}", f"no role has this name; allowed: {', '.join(sorted(replicas))}")
        elif not 0 <= count <= replicas[name]:
            problem = f"{count} is out of range; allowed: 0 to {replicas[name]}, the role's replicas"
            yield FieldError(f"{path}.{name}", problem)
    before = _old_gang(old)
    if before is not None and wanted != before:
        yield FieldError(path, f"immutable once set: it was {before} and can't become {wanted or 'unset'}")


def _old_gang(old: Json | None) -> Any:
    template = ((old or {}).get("spec") or {}).get("template") or {}
    return (template.get("gangPolicy") or {}).get("minRoleReplicas")


def _rollout_problems(spec: ModelServingSpec) -> Iterator[FieldError]:
    strategy = spec.rollout_strategy
    by_role = strategy.type == "RoleRollingUpdate"
    rolling = strategy.rolling_update_configuration
    path = "spec.rolloutStrategy.rollingUpdateConfiguration"
    if rolling is not None:
        if by_role:
            yield FieldError(path, "not allowed with RoleRollingUpdate; set maxUnavailable and partition on the roles")
        yield from _away_problems(rolling.max_unavailable, spec.replicas, f"{path}.maxUnavailable")
    if by_role and spec.recovery_policy == "ServingGroupRecreate":
        problem = "ServingGroupRecreate can't be combined with RoleRollingUpdate; allowed: RoleRecreate, None"
        yield FieldError("spec.recoveryPolicy", problem)
    for index, role in enumerate(spec.roles):
        at = f"spec.template.roles[{index}]"
        if role.partition is not None and not by_role:
            problem = "only allowed when spec.rolloutStrategy.type is RoleRollingUpdate"
            yield FieldError(f"{at}.partition", problem)
        yield from _away_problems(role.max_unavailable, role.replicas, f"{at}.maxUnavailable")
        if role.max_unavailable_count() > max(role.replicas, 1):
            problem = f"{role.max_unavailable} is more than the role's replicas; allowed: at most {role.replicas}"
            yield FieldError(f"{at}.maxUnavailable", problem)


def _away_problems(value: int | str, replicas: int, path: str) -> Iterator[FieldError]:
    # With no replicas every percentage comes to 0; only a written zero is wrong then.
    if value in (0, "0%") or (replicas > 0 and resolve_int_or_percent(value, replicas, round_up=False) == 0):
        problem = f"{value} of {replicas} comes to 0, so a rollout could never begin; allowed: what comes to 1 or more"
        yield FieldError(path, problem)


KIND = Kind(
    group="workload.serving.volcano.sh",
    version="v1alpha1",
    kind="ModelServing",
    plural="modelservings",
    short_names=("ms",),
    spec=ModelServingSpec,
    check=check,
    scale_path="spec.replicas",
    columns=(
        Column("REPLICAS", "spec.replicas"),
        Column("AVAILABLE", "status.availableReplicas"),
        Column("UPDATED", "status.updatedReplicas"),
        Column("REVISION", "status.currentRevision"),
    ),
    ready_condition="Available",
    doc="groups of engines that serve one model, by role",
)
