"""Which adapters a ModelServer declares, and whether an engine could serve one now. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hekla.platform.api.meta import Json
from hekla.routing.backend import Backend, ModelServer
from hekla.routing.matching import Route, Rule, Target


def can_serve(server: ModelServer, adapter: str) -> bool:
    """Whether an engine, or a pair of them, says that it has the adapter, or says nothing of what it serves."""
    if server.groups is None:
        return _any_has(server.backends, adapter)
    return any(
        _any_has(group.decode, adapter) and (not group.prefill or _any_has(group.prefill, adapter))
        for group in server.groups.values()
    )


def _any_has(backends: Iterable[Backend], adapter: str) -> bool:
    return any(not backend.models or adapter in backend.models for backend in backends)


def routable_adapters(
    servers: Iterable[Json], usable: Mapping[tuple[str, str], ModelServer]
) -> list[tuple[str, Route]]:
    """A route for each adapter that its ModelServer declares `routable`, the oldest server's first."""
    found: list[tuple[str, Route]] = []
    for obj in sorted(
        servers, key=lambda obj: (obj["metadata"].get("creationTimestamp") or "", obj["metadata"]["name"])
    ):
        namespace, name = obj["metadata"].get("namespace") or "default", obj["metadata"]["name"]
        if (namespace, name) not in usable:
            continue
        names = tuple(one["name"] for one in (obj.get("spec") or {}).get("loraAdapters") or () if one.get("routable"))
        rule = Rule(name="adapters", targets=(Target(name, 1),))
        route = Route(f"{namespace}/{name}", namespace, "", names, (rule,), ("", 0, name))
        found.extend((adapter, route) for adapter in names)
    return found
