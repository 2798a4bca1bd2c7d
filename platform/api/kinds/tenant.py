"""Tenant: a team or customer: which models it may use, what it may spend, and its share when engines are busy."""

from __future__ import annotations

from pydantic import Field

from hekla.platform.api.budgets import BUDGETS_MAX, PATTERNS_MAX, BudgetSpec, ModelPattern, budget_problems
from hekla.platform.api.meta import ApiModel, Json
from hekla.platform.api.registry import Column, Kind
from hekla.platform.base.errors import FieldError

PRIORITY_MAX = 1000


class TenantSpec(ApiModel):
    display_name: str = Field(default="", max_length=256)
    """Free text for people."""
    models: list[ModelPattern] | None = Field(default=None, max_length=PATTERNS_MAX)
    """Globs of the models the tenant may use and see; unset: all, an empty list: none."""
    weight: float = Field(default=1.0, gt=0, le=10_000)
    """Its share of busy engines against other tenants of its priority."""
    priority: int = Field(default=0, ge=-PRIORITY_MAX, le=PRIORITY_MAX)
    """Higher classes are served first, strictly."""
    budgets: list[BudgetSpec] = Field(default_factory=list, max_length=BUDGETS_MAX)
    suspended: bool = False
    """Refuses all its callers with 403; nothing of it is lost."""


def _check(new: Json, _old: Json | None) -> list[FieldError]:
    return budget_problems(new)


KIND = Kind(
    group="hekla.io",
    version="v1alpha1",
    kind="Tenant",
    plural="tenants",
    short_names=("ten",),
    spec=TenantSpec,
    check=_check,
    columns=(
        Column("WEIGHT", "spec.weight"),
        Column("PRIORITY", "spec.priority"),
        Column("MODELS", lambda obj: ",".join(obj["spec"].get("models") or ()) or "all"),
        Column("SUSPENDED", "spec.suspended"),
    ),
    doc="a team or customer: the models it may use, its budgets, and its share of busy engines",
)
