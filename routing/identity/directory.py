"""Tenants, keys and prices as the resource API has them: an immutable picture, looked up by key id. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from math import inf
from typing import Any

from hekla.platform.api.kinds.apikey import DEFAULT_TENANT
from hekla.platform.api.meta import Json, Ref, ref_of
from hekla.platform.base.clock import parse_rfc3339
from hekla.routing.identity.interface import Budget, Caller, Subject
from hekla.routing.identity.settings import Price

PRICE_ANNOTATION = "hekla.io/price"
ANONYMOUS = "anonymous"
"""Name of the tenant of callers without a credential."""
NANOS = 1_000_000_000
MALFORMED = (ValueError, TypeError, KeyError, AttributeError)


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


def build_directory(tenants: Iterable[Json], keys: Iterable[Json], routes: Iterable[Json]) -> Directory:
    """An object that can't be read is left out and named in `problems`: a broken key is refused, a broken tenant too."""
    problems: dict[str, str] = {}
    found = {tenant.name: tenant for obj in tenants if (tenant := _read(_tenant, obj, problems)) is not None}
    by_id: dict[str, Key] = {}
    for obj in sorted(keys, key=lambda obj: obj["metadata"].get("creationTimestamp") or ""):
        for key in _read(lambda one: _keys(one, found), obj, problems) or ():
            if key.id in by_id:
                problems[str(ref_of(obj))] = f"spec.id: {key.id!r} is another key's too; the older one counts"
            else:
                by_id[key.id] = key
    prices: dict[str, Price] = {}
    for obj in routes:
        for price in _read(_prices, obj, problems) or ():
            prices.setdefault(price.model, price)
    return Directory(found, by_id, prices, problems)


def _read(read: Any, obj: Json, problems: dict[str, str]) -> Any:
    try:
        return read(obj)
    except MALFORMED as error:
        problems[str(ref_of(obj))] = f"{type(error).__name__}: {error}"
        return None


def tenant_name(namespace: str, name: str) -> str:
    return name if namespace == "default" else f"{namespace}/{name}"


def _tenant(obj: Json) -> Tenant:
    ref, spec = ref_of(obj), obj["spec"]
    name = tenant_name(ref.namespace, ref.name)
    common = Caller(
        tenant=name, weight=float(spec.get("weight", 1.0)), priority=int(spec.get("priority", 0)),
        models=_patterns(spec), budgets=_budgets(ref, spec),
    )  # fmt: skip
    return Tenant(name, common, bool(spec.get("suspended", False)) or _is_ending(obj))


def unlimited(name: str) -> Tenant:
    """A tenant without an object."""
    return Tenant(name, Caller(tenant=name))


def _tenant_of(tenants: Mapping[str, Tenant], name: str) -> Tenant | str:
    found = tenants.get(name)
    if found is None:
        return f"there is no tenant {name!r}"
    return f"the tenant {name!r} is suspended" if found.suspended else found


def _keys(obj: Json, tenants: Mapping[str, Tenant]) -> list[Key]:
    ref, spec = ref_of(obj), obj["spec"]
    own = Caller(
        key_id=spec["id"], user=spec.get("user") or "", models=_patterns(spec), budgets=_budgets(ref, spec),
        scopes=frozenset(spec.get("scopes") or ("inference",)),
    )  # fmt: skip
    named = spec.get("tenant") or DEFAULT_TENANT
    name = DEFAULT_TENANT if named == DEFAULT_TENANT else tenant_name(ref.namespace, named)
    tenant = Directory(tenants).tenant(name)
    refused = tenant if isinstance(tenant, str) else ""
    caller = own if isinstance(tenant, str) else joined(tenant, own, spec.get("priority"))
    revoked = bool(spec.get("revoked", False)) or _is_ending(obj)
    expires_s = parse_rfc3339(spec["expiresAt"]) if spec.get("expiresAt") else inf
    found = [Key(spec["id"], spec["digest"], caller, refused, expires_s, revoked)]
    if old := spec.get("previous"):
        until_s = min(expires_s, parse_rfc3339(old["expiresAt"]))
        found.append(Key(old["id"], old["digest"], replace(caller, key_id=old["id"]), refused, until_s, revoked))
    return found


def _is_ending(obj: Json) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def _patterns(spec: Json) -> tuple[tuple[str, ...], ...]:
    return () if spec.get("models") is None else (tuple(spec["models"]),)


def _budgets(ref: Ref, spec: Json) -> tuple[Budget, ...]:
    subject = Subject(ref.kind, ref.namespace, ref.name)
    return tuple(
        Budget(
            subject, item["window"], tuple(item.get("models") or ("*",)), item.get("tokens"),
            None if item.get("money") is None else round(item["money"] * NANOS),
        )
        for item in spec.get("budgets") or ()
    )  # fmt: skip


def _prices(obj: Json) -> list[Price]:
    text = (obj["metadata"].get("annotations") or {}).get(PRICE_ANNOTATION)
    if text is None:
        return []
    numbers = json.loads(text)
    unknown = sorted(set(numbers) - {"input", "cached", "output"})
    if unknown:
        raise ValueError(f"metadata.annotations[{PRICE_ANNOTATION}]: {unknown[0]!r}; allowed: input, cached, output")
    spec = obj.get("spec") or {}
    names = [name for name in (spec.get("modelName"), *(spec.get("loraAdapters") or ())) if name]
    return [Price(name, **{key: float(value) for key, value in numbers.items()}) for name in names]
