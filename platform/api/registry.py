"""The table of kinds. A kind is one file in `kinds/` that ends in `KIND = Kind(...)`; nothing else has to know it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from hekla.platform.api import kinds
from hekla.platform.api.meta import ApiModel, Json
from hekla.platform.base.errors import FieldError, NotFound


def no_checks(_new: Json, _old: Json | None) -> list[FieldError]:
    return []


def no_references(_obj: Json) -> list[tuple[str, str, str]]:
    return []


@dataclass(frozen=True)
class Column:
    """A column of `hekla get`: its heading and where the value lies, a dotted path or a function of the object."""

    heading: str
    value: str | Callable[[Json], str]


@dataclass(frozen=True)
class Kind:
    """One resource kind.

    `check(new, old)` returns what the model alone can't see (rules across fields, immutable fields; `old` is None on
    create). `references(obj)` yields (field path, kind, name) of objects of the same namespace that the object needs.
    """

    group: str
    version: str
    kind: str
    plural: str
    spec: type[ApiModel]
    short_names: tuple[str, ...] = ()
    check: Callable[[Json, Json | None], list[FieldError]] = no_checks
    references: Callable[[Json], list[tuple[str, str, str]]] = no_references
    scale_path: str | None = None
    """Dotted path of the replica count, when the kind has a `/scale` subresource."""
    columns: tuple[Column, ...] = ()
    ready_condition: str | None = None
    """The condition `hekla wait` and `wait_ready` wait for; None: ready as soon as it exists."""
    internal: bool = False
    """Written by hekla itself: read-only through the HTTP API."""
    hidden: tuple[str, ...] = ()
    """Maps of the spec whose values the HTTP API shows to nobody but the ingress."""
    doc: str = field(default="", compare=False)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}"

    @property
    def singular(self) -> str:
        return self.kind.lower()


@cache
def all_kinds() -> dict[str, Kind]:
    """Every kind by its name."""
    found: dict[str, Kind] = {}
    for module in pkgutil.iter_modules(kinds.__path__):
        kind = getattr(importlib.import_module(f"{kinds.__name__}.{module.name}"), "KIND", None)
        if isinstance(kind, Kind):
            found[kind.kind] = kind
    return found


def kind_named(name: str) -> Kind:
    """The kind by kind, plural, singular or short name in any case; NotFound lists what there is."""
    wanted = name.lower()
    for kind in all_kinds().values():
        if wanted in (kind.kind.lower(), kind.plural, f"{kind.plural}.{kind.group}", *kind.short_names):
            return kind
    known = ", ".join(sorted(kind.plural for kind in all_kinds().values()))
    raise NotFound(f"no resource kind {name!r}; known kinds: {known}")


def kind_at(group: str, version: str, plural: str) -> Kind:
    """The kind served under ``/apis/<group>/<version>/…/<plural>``."""
    for kind in all_kinds().values():
        if (kind.group, kind.version, kind.plural) == (group, version, plural):
            return kind
    raise NotFound(f"the server has no resource {plural} in {group}/{version}")
