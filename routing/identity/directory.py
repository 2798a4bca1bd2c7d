"""Tenants, keys and prices: an immutable picture of what the resource API has, looked up by key id. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from math import inf

from hekla.platform.api.kinds.apikey import DEFAULT_TENANT
from hekla.routing.identity.interface import Caller
from hekla.routing.identity.settings import Price

ANONYMOUS = "anonymous"
"""Name of the tenant of callers without a credential."""


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    caller: Caller
    """What all of its callers have in common."""
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """One secret; a key that was rotated lately has two."""

    id: str
    digest: str
    caller: Caller
    """Whoever sends it, the tenant's limits and the key's own together."""
    refused: str = ""
    """Why its tenant may not call."""
    expires_s: float = inf
    revoked: bool = False


@dataclass(frozen=True)
class Directory:
    tenants: Mapping[str, Tenant] = field(default_factory=dict)
    keys: Mapping[str, Key] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)
    """By model, from ModelRoutes."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Objects left out, and why."""

    def tenant(self, name: str, *, needs_object: bool = False) -> Tenant | str:
        """The tenant, or why it may not call.

        A tenant whose object is gone is refused, not freed of its limits; only `default` and `anonymous` need none,
        unless `needs_object`.
        """
        if name not in self.tenants and name in (DEFAULT_TENANT, ANONYMOUS) and not needs_object:
            return unlimited(name)
        return _tenant_of(self.tenants, name)

    def price(self, model: str, others: Iterable[Price] = ()) -> Price | None:
        """The route's price, else the first of `others` whose glob fits, else None."""
        found = self.prices.get(model)
        return found or next((price for price in others if fnmatchcase(model, price.model)), None)

    def __repr__(self) -> str:
        return f"Directory(tenants={len(self.tenants)}, keys={len(self.keys)}, problems={len(self.problems)})"


def joined(tenant: Tenant, own: Caller, priority: int | None = None) -> Caller:
    """A tenant's caller with its own limits on top; `priority` instead of the tenant's."""
    base = tenant.caller
    return replace(
        own, tenant=tenant.name, weight=base.weight, models=base.models + own.models, budgets=base.budgets + own.budgets,
        priority=base.priority if priority is None else priority,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def unlimited(name: str) -> Tenant:
    """A tenant without an object; the same one each time, as what was read of its keys is kept by that."""
    return Tenant(name, Caller(tenant=name))


def _tenant_of(tenants: Mapping[str, Tenant], name: str) -> Tenant | str:
    found = tenants.get(name)
    if found is None:
        return f"there is no tenant {name!r}"
    return f"the tenant {name!r} is suspended" if found.suspended else found
