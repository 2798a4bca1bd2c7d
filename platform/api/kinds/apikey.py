"""ApiKey: one key of a tenant, as the digest of its secret. `hekla key create` makes them and shows the secret once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from hekla.platform.api.budgets import BUDGETS_MAX, PATTERNS_MAX, BudgetSpec, ModelPattern, budget_problems
from hekla.platform.api.meta import ApiModel, Json
from hekla.platform.api.registry import Column, Kind
from hekla.platform.base.clock import parse_rfc3339
from hekla.platform.base.errors import FieldError

DEFAULT_TENANT = "default"
"""The one tenant that needs no Tenant object; as long as it has none it has no limits."""


def _checked_time(text: str) -> str:
    try:
        parse_rfc3339(text)
    except ValueError:
        raise ValueError(f"{text[:64]!r} is not a time; allowed: such as 2027-01-31T00:00:00Z") from None
    if not text.endswith("Z") and "+" not in text[10:] and "-" not in text[10:]:
        raise ValueError(f"{text[:64]!r} has no time zone; allowed: such as 2027-01-31T00:00:00Z")
    return text


Time = Annotated[str, AfterValidator(_checked_time)]
"""An RFC 3339 time with its zone."""
Scope = Literal["inference", "admin", "metrics"]
KeyId = Annotated[str, Field(pattern=r"^[a-z2-7]{16}$")]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class PreviousSecret(ApiModel):
    """The secret before the last rotation, good for a while longer."""

    id: KeyId
    digest: Digest
    expires_at: Time


class ApiKeySpec(ApiModel):
    id: KeyId
    """The part of the key that is no secret: `hk-<id>-<secret>`; logs name the key by it."""
    digest: Digest
    """SHA-256 of the whole key with a fixed prefix; the key can't be had from it."""
    previous: PreviousSecret | None = None
    """Set by `hekla key rotate`."""
    tenant: str = Field(default=DEFAULT_TENANT, min_length=1, max_length=253)
    """A Tenant of the key's namespace."""
    user: str = Field(default="", max_length=253)
    """The person or program that has the key; limits per user count by it."""
    scopes: list[Scope] = Field(default=["inference"], min_length=1)
    """`inference`: the model API. `metrics`: `/metrics`. `admin`: these, and the resource API."""
    models: list[ModelPattern] | None = Field(default=None, max_length=PATTERNS_MAX)
    """Narrows the tenant's models further; unset: all of the tenant's."""
    priority: int | None = Field(default=None, ge=-1000, le=1000)
    """Instead of the tenant's priority."""
    budgets: list[BudgetSpec] = Field(default_factory=list, max_length=BUDGETS_MAX)
    """Besides the tenant's."""
    expires_at: Time | None = None
    """Refused from then on; unset: never."""
    revoked: bool = False
    """Refused at once, and kept for the record."""


def _check(new: Json, _old: Json | None) -> list[FieldError]:
    return budget_problems(new)


def _references(obj: Json) -> Iterator[tuple[str, str, str]]:
    tenant = obj["spec"].get("tenant", DEFAULT_TENANT)
    if tenant != DEFAULT_TENANT:
        yield "spec.tenant", "Tenant", tenant


def _state(obj: Json) -> str:
    return "revoked" if obj["spec"].get("revoked") else "active"


KIND = Kind(
    group="hekla.io",
    version="v1alpha1",
    kind="ApiKey",
    plural="apikeys",
    short_names=("key",),
    spec=ApiKeySpec,
    check=_check,
    references=lambda obj: list(_references(obj)),
    columns=(
        Column("ID", "spec.id"),
        Column("TENANT", "spec.tenant"),
        Column("USER", "spec.user"),
        Column("SCOPES", lambda obj: ",".join(obj["spec"].get("scopes") or ())),
        Column("EXPIRES", "spec.expiresAt"),
        Column("STATE", _state),
    ),
    doc="one key of a tenant, as the digest of its secret",
)
