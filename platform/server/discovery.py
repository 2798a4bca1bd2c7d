"""Discovery: which groups, versions and resources there are, in the form that kubectl asks for."""

from __future__ import annotations

from hekla.platform.api.meta import Json
from hekla.platform.api.registry import Kind, all_kinds
from hekla.platform.base.errors import NotFound

READ_VERBS = ["get", "list", "watch"]
WRITE_VERBS = ["create", "delete", "patch", "update"]


def groups() -> Json:
    names = sorted({kind.group for kind in all_kinds().values()})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group(name) for name in names]}


def group(name: str) -> Json:
    """Raises NotFound."""
    versions = sorted({kind.version for kind in all_kinds().values() if kind.group == name})
    if not versions:
        raise NotFound(f"the server has no API group {name}")
    offered = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": offered, "preferredVersion": offered[-1]}


def resources(name: str, version: str) -> Json:
    """Raises NotFound."""
    kinds = [kind for kind in all_kinds().values() if (kind.group, kind.version) == (name, version)]
    if not kinds:
        raise NotFound(f"the server has no API {name}/{version}")
    listed = [entry for kind in sorted(kinds, key=lambda kind: kind.plural) for entry in _entries(kind)]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{name}/{version}", "resources": listed}


def _entries(kind: Kind) -> list[Json]:
    main: Json = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": True,
        "kind": kind.kind,
        "verbs": sorted(READ_VERBS if kind.internal else READ_VERBS + WRITE_VERBS),
        "shortNames": list(kind.short_names),
    }
    part = {"singularName": "", "namespaced": True}
    verbs = ["get"] if kind.internal else ["get", "patch", "update"]
    entries = [main, {**part, "name": f"{kind.plural}/status", "kind": kind.kind, "verbs": verbs}]
    if kind.scale_path is not None:
        scale = {"name": f"{kind.plural}/scale", "kind": "Scale", "group": "autoscaling", "version": "v1"}
        entries.append({**part, **scale, "verbs": ["get", "patch", "update"]})
    return entries
