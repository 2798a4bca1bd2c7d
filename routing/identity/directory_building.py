"""Reads Tenants, ApiKeys and ModelRoutes' prices into a directory. Pure.

With ten thousand keys reading all of them takes a tenth of a second, which an event loop has not; so what was read of an
object is kept until the object, or its tenant, is another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from math import inf
from typing import TypeVar

from hekla.platform.api.kinds.apikey import DEFAULT_TENANT
from hekla.platform.api.meta import Json, Ref, ref_of
from hekla.platform.base.clock import parse_rfc3339
from hekla.routing.identity.directory import Directory, Key, Tenant, joined
from hekla.routing.identity.interface import Budget, Caller, Subject
from hekla.routing.identity.settings import Price

PRICE_ANNOTATION = "hekla.io/price"
NANOS = 1_000_000_000
MALFORMED = (ValueError, TypeError, KeyError, AttributeError)

T = TypeVar("T")


class DirectoryBuilder:
    def __init__(self) -> None:
        self._tenants: dict[str, Tenant] = {}
        self._keys: dict[int, tuple[Json, Tenant | str, list[Key]]] = {}
        """By the object's identity; the object itself is kept, so that no other can get that identity."""

    def build(self, tenants: Iterable[Json], keys: Iterable[Json], routes: Iterable[Json]) -> Directory:
        """An object that can't be read is named in `problems`: a broken key is refused, and so is a broken tenant."""
        problems: dict[str, str] = {}
        found = self._tenants = self._by_name(tenants, problems)
        by_id = self._by_id(keys, Directory(found), problems)
        prices: dict[str, Price] = {}
        for obj in routes:
            none: list[Price] = []
            for price in _read(_prices, obj, problems, none):
                prices.setdefault(price.model, price)
        return Directory(found, by_id, prices, problems)

    def _by_name(self, objects: Iterable[Json], problems: dict[str, str]) -> dict[str, Tenant]:
        found = {}
        for obj in objects:
            tenant = _tenant_or_none_of_it(obj, problems)
            before = self._tenants.get(tenant.name)
            found[tenant.name] = before if before == tenant else tenant
        return found

    def _by_id(self, objects: Iterable[Json], tenants: Directory, problems: dict[str, str]) -> dict[str, Key]:
        kept, by_id = {}, dict[str, Key]()
        for obj in sorted(objects, key=lambda obj: obj["metadata"].get("creationTimestamp") or ""):
            tenant = tenants.tenant(_tenant_named_by(obj))
            known = self._keys.get(id(obj))
            if known is None or known[1] is not tenant:
                none: list[Key] = []
                known = (obj, tenant, _read(partial(_keys, tenant=tenant), obj, problems, none))
            kept[id(obj)] = known
            for key in known[2]:
                if key.id in by_id:
                    problems[str(ref_of(obj))] = f"spec.id: {key.id!r} is another key's too; the older one counts"
                else:
                    by_id[key.id] = key
            if not known[2]:
                del kept[id(obj)]  # so that its problem is named again
        self._keys = kept
        return by_id


def build_directory(tenants: Iterable[Json], keys: Iterable[Json], routes: Iterable[Json]) -> Directory:
    return DirectoryBuilder().build(tenants, keys, routes)


def _read(read: Callable[[Json], T], obj: Json, problems: dict[str, str], otherwise: T) -> T:
    try:
        return read(obj)
    except MALFORMED as error:
        problems[str(ref_of(obj))] = f"{type(error).__name__}: {error}"
        return otherwise


def tenant_name(namespace: str, name: str) -> str:
    return name if namespace == "default" else f"{namespace}/{name}"


def _tenant_named_by(key: Json) -> str:
    named = (key.get("spec") or {}).get("tenant") or DEFAULT_TENANT
    return DEFAULT_TENANT if named == DEFAULT_TENANT else tenant_name(ref_of(key).namespace, str(named))


def _tenant_or_none_of_it(obj: Json, problems: dict[str, str]) -> Tenant:
    """A tenant whose limits can't be read is suspended: without them it would be one without limits."""
    name = tenant_name(ref_of(obj).namespace, ref_of(obj).name)
    return _read(_tenant, obj, problems, Tenant(name, Caller(tenant=name), suspended=True))


def _tenant(obj: Json) -> Tenant:
    ref, spec = ref_of(obj), obj["spec"]
    name = tenant_name(ref.namespace, ref.name)
    common = Caller(
        tenant=name, weight=float(spec.get("weight", 1.0)), priority=int(spec.get("priority", 0)),
        models=_patterns(spec), budgets=_budgets(ref, spec),
    )  # fmt: skip
    return Tenant(name, common, bool(spec.get("suspended", False)) or _is_ending(obj))


def _keys(obj: Json, tenant: Tenant | str) -> list[Key]:
    ref, spec = ref_of(obj), obj["spec"]
    own = Caller(
        key_id=spec["id"], user=spec.get("user") or "", models=_patterns(spec), budgets=_budgets(ref, spec),
        scopes=frozenset(spec.get("scopes") or ("inference",)),
    )  # fmt: skip
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
