"""The whole cluster at a glance: what `hekla status` shows."""

from __future__ import annotations

from hekla.deployments.naming import LABEL_ROLE, LABEL_SERVING
from hekla.platform.api.meta import Json, condition_status
from hekla.platform.cluster.interface import Node
from hekla.platform.root.settings import PlatformSettings
from hekla.platform.store.interface import Store


def summarize(store: Store, nodes: list[Node], settings: PlatformSettings) -> Json:
    """Nodes with what they have and what is free, models with their readiness, engines, and totals."""
    engines = store.list("Engine").items
    return {
        "endpoint": settings.endpoint,
        "nodes": [_node(node, engines) for node in nodes],
        "models": [_model(route, store, engines) for route in store.list("ModelRoute").items],
        "engines": [_engine(engine) for engine in engines],
        "totals": {
            "nodes": len(nodes),
            "engines": len(engines),
            "enginesReady": sum(_phase(engine) == "Ready" for engine in engines),
            "servings": len(store.list("ModelServing").items),
            "resourceVersion": store.list("ModelServing").resource_version,
        },
    }


def _phase(engine: Json) -> str:
    return str(engine.get("status", {}).get("phase", "Pending"))


def _node(node: Node, engines: list[Json]) -> Json:
    shown = {name: total for name, total in node.total.items() if not name.startswith(("node:", "object_store"))}
    return {
        "id": node.node_id,
        "name": node.name,
        "address": node.address,
        "head": node.is_head,
        "total": shown,
        "free": {name: node.available.get(name, 0.0) for name in shown},
        "engines": sum(engine["spec"].get("node") == node.node_id for engine in engines),
    }


def _model(route: Json, store: Store, engines: list[Json]) -> Json:
    namespace = route["metadata"]["namespace"]
    names = {
        target.get("modelServerName", "")
        for rule in route["spec"].get("rules", ())
        for target in rule.get("targetModels", ())
    }
    servers = [item for item in store.list("ModelServer", namespace).items if item["metadata"]["name"] in names]
    behind = [engine for engine in engines if any(_selects(server, engine) for server in servers)]
    owner = next(iter(route["metadata"].get("ownerReferences", ())), None)
    return {
        "name": route["spec"].get("modelName") or ", ".join(route["spec"].get("loraAdapters", ())),
        "namespace": namespace,
        "route": route["metadata"]["name"],
        "owner": f"{owner['kind']}/{owner['name']}" if owner else "",
        "enginesReady": sum(_phase(engine) == "Ready" for engine in behind),
        "engines": len(behind),
        "message": _why_not_ready(behind, servers, store),
    }


def _selects(server: Json, engine: Json) -> bool:
    labels = engine["metadata"].get("labels", {})
    same_namespace = server["metadata"]["namespace"] == engine["metadata"]["namespace"]
    return bool(same_namespace and _wanted(server).items() <= labels.items())


def _wanted(server: Json) -> dict[str, str]:
    return dict(server["spec"]["workloadSelector"]["matchLabels"])


def _why_not_ready(engines: list[Json], servers: list[Json], store: Store) -> str:
    """The most telling message: an engine's own, else why the engines to be could not be placed."""
    for engine in engines:
        if _phase(engine) != "Ready" and (message := engine.get("status", {}).get("message", "")):
            return f"{engine['metadata']['name']}: {message}"
    if engines:
        return ""
    for server in servers:
        for serving in store.list("ModelServing", server["metadata"]["namespace"]).items:
            if _would_select(server, serving) and condition_status(serving, "Schedulable") == "False":
                conditions = serving["status"]["conditions"]
                return str(next(c["message"] for c in conditions if c["type"] == "Schedulable"))
    return ""


def _would_select(server: Json, serving: Json) -> bool:
    """Would the server choose engines made from this serving's templates?"""
    for role in serving["spec"]["template"]["roles"]:
        own = {LABEL_SERVING: serving["metadata"]["name"], LABEL_ROLE: role["name"]}
        labels = {**(role["entryTemplate"].get("metadata") or {}).get("labels", {}), **own}
        if _wanted(server).items() <= labels.items():
            return True
    return False


def _engine(engine: Json) -> Json:
    status = engine.get("status", {})
    return {
        "name": engine["metadata"]["name"],
        "namespace": engine["metadata"]["namespace"],
        "role": engine["spec"].get("role", ""),
        "phase": _phase(engine),
        "node": status.get("nodeName", ""),
        "address": status.get("address", ""),
        "pid": status.get("pid", 0),
        "message": status.get("message", ""),
    }
