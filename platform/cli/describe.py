"""`hekla describe`: one object with its conditions, its engines and what happened to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from hekla.platform.api.meta import Json
from hekla.platform.api.registry import kind_named
from hekla.platform.cli.options import KindName, Namespace, ObjectName, client_of
from hekla.platform.cli.output import as_yaml, say
from hekla.platform.cli.tables import age, print_objects, print_table

if TYPE_CHECKING:
    from hekla.platform.sdk import Client

EVENTS_SHOWN_MAX = 30


def describe(context: typer.Context, kind: KindName, name: ObjectName, namespace: Namespace = "default") -> None:
    """Show one object in full: spec, conditions, engines and events."""
    with client_of(context, namespace) as client:
        obj = client.get(kind, name)
        _heading(obj)
        _yaml("Spec", obj.get("spec", {}))
        _status(obj)
        _engines(client, obj)
        _events(client, obj)


def _heading(obj: Json) -> None:
    meta = obj["metadata"]
    owners = ", ".join(f"{owner['kind']}/{owner['name']}" for owner in meta.get("ownerReferences") or ())
    rows = {
        "Kind": f"{obj['kind']} ({obj['apiVersion']})",
        "Name": meta["name"],
        "Namespace": meta["namespace"],
        "Labels": _pairs(meta.get("labels")),
        "Annotations": _pairs(meta.get("annotations")),
        "Owner": owners,
        "Created": f"{meta.get('creationTimestamp', '')} ({age(meta.get('creationTimestamp', ''))} ago)",
        "Deleted": meta.get("deletionTimestamp") or "",
        "Generation": str(meta.get("generation", "")),
    }
    for title, value in rows.items():
        if value:
            say(f"{title + ':':<13}{value}")


def _pairs(values: dict[str, str] | None) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted((values or {}).items()))


def _yaml(title: str, value: Json) -> None:
    if value:
        say(f"{title}:")
        say("\n".join("  " + line for line in as_yaml(value).splitlines()))


def _status(obj: Json) -> None:
    status = dict(obj.get("status") or {})
    conditions = status.pop("conditions", None) or []
    _yaml("Status", status)
    if conditions:
        say("Conditions:")
        rows = [
            [c["type"], c["status"], c.get("reason", ""), age(c.get("lastTransitionTime", "")), c.get("message", "")]
            for c in conditions
        ]
        print_table(["TYPE", "STATUS", "REASON", "FOR", "MESSAGE"], rows)


def _engines(client: Client, obj: Json) -> None:
    from hekla.platform.sdk.waiting import descendants

    if obj["kind"] == "Engine":
        return
    below = descendants(obj, [*client.list("ModelServing"), *client.list("Engine")])
    engines = [child for child in below if child["kind"] == "Engine"]
    if engines:
        say("Engines:")
        print_objects(kind_named("Engine"), sorted(engines, key=lambda engine: str(engine["metadata"]["name"])))


def _events(client: Client, obj: Json) -> None:
    events = client.events(obj["kind"], obj["metadata"]["name"])[-EVENTS_SHOWN_MAX:]
    if not events:
        say("Events:      none")
        return
    say("Events:")
    specs = [event["spec"] for event in events]
    rows = [
        [age(s.get("lastSeen", "")), s.get("type", ""), s["reason"], str(s.get("count", 1)), s.get("message", "")]
        for s in specs
    ]
    print_table(["AGE", "TYPE", "REASON", "COUNT", "MESSAGE"], rows)
