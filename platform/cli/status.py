"""`hekla status`: the whole cluster at a glance."""

from __future__ import annotations

from typing import Annotated

import typer

from hekla.platform.api.meta import Json
from hekla.platform.cli.options import client_of
from hekla.platform.cli.output import DataFormat, say, write_data
from hekla.platform.cli.tables import print_table

GIB = 2**30


def status(
    context: typer.Context,
    output: Annotated[DataFormat, typer.Option("--output", "-o", help="How to print.")] = DataFormat.TABLE,
) -> None:
    """Show nodes with what is used and free, models with their readiness, and engines."""
    with client_of(context) as client:
        summary = client.status()
        endpoint = client.base_url
    if output is not DataFormat.TABLE:
        write_data(summary, output)
        return
    say(f"endpoint  {summary.get('endpoint') or endpoint}/v1")
    _section("nodes", ["NODE", "ADDRESS", "ENGINES", "USED / TOTAL"], [_node(node) for node in summary["nodes"]])
    _section(
        "models", ["MODEL", "NAMESPACE", "READY", "FROM", "MESSAGE"], [_model(model) for model in summary["models"]]
    )
    headings = ["ENGINE", "NAMESPACE", "ROLE", "PHASE", "NODE", "ADDRESS", "PID", "MESSAGE"]
    _section("engines", headings, [_engine(engine) for engine in summary["engines"]])


def _section(title: str, headings: list[str], rows: list[list[str]]) -> None:
    say("")
    if rows:
        print_table(headings, rows)
    else:
        say(f"no {title}")


def _node(node: Json) -> list[str]:
    name = node["name"] + (" (head)" if node.get("head") else "")
    used = [
        _usage(resource, total, node["free"].get(resource, 0.0)) for resource, total in sorted(node["total"].items())
    ]
    return [name, node.get("address", ""), str(node.get("engines", 0)), ", ".join(used)]


def _usage(resource: str, total: float, free: float) -> str:
    used = max(0.0, total - free)
    if resource in ("memory", "object_store_memory"):
        return f"{resource} {used / GIB:.1f}/{total / GIB:.1f} GiB"
    return f"{resource} {used:g}/{total:g}"


def _model(model: Json) -> list[str]:
    ready, count = model.get("enginesReady", 0), model.get("engines", 0)
    origin = model.get("owner") or f"ModelRoute/{model.get('route', '')}"
    return [model["name"], model.get("namespace", ""), f"{ready}/{count}", origin, model.get("message", "")]


def _engine(engine: Json) -> list[str]:
    keys = ("name", "namespace", "role", "phase", "node", "address", "pid", "message")
    return [str(engine.get(key) or "-").replace("\n", " ") for key in keys]
