"""`hekla events`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hekla.platform.api.meta import Json
from hekla.platform.api.registry import kind_named
from hekla.platform.cli.get import Shown
from hekla.platform.cli.options import Namespace, client_of
from hekla.platform.cli.output import DataFormat, Format, listed, progress, write_data
from hekla.platform.cli.tables import age, print_table

if TYPE_CHECKING:
    from hekla.platform.sdk import Client


def events(
    context: typer.Context,
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="Only about objects of this kind.")] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only about this object.")] = None,
    namespace: Namespace = "default",
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Print every event from now on; end with Ctrl-C.")
    ] = False,
    output: Annotated[DataFormat, typer.Option("--output", "-o", help="How to print.")] = DataFormat.TABLE,
) -> None:
    """Show what happened, oldest first: to everything, to a kind, or to one object."""
    with client_of(context, namespace) as client:
        if watch:
            _watch(client, kind, name, output)
            return
        found = client.events(kind, name)
    if output is not DataFormat.TABLE:
        write_data(listed(found), output)
    elif found:
        print_table(["AGE", "TYPE", "REASON", "OBJECT", "COUNT", "MESSAGE"], [_row(event) for event in found])
    else:
        progress(f"no events in namespace {namespace}")


def _row(event: Json) -> list[str]:
    spec = event["spec"]
    regarding = f"{spec['regardingKind']}/{spec['regardingName']}"
    when = age(spec.get("lastSeen") or event["metadata"].get("creationTimestamp", ""))
    return [when, spec.get("type", ""), spec["reason"], regarding, str(spec.get("count", 1)), spec.get("message", "")]


def _watch(client: Client, kind: str | None, name: str | None, output: DataFormat) -> None:
    from hekla.platform.sdk.calls import regards

    wanted = kind_named(kind).kind if kind else None
    shown = Shown(kind_named("Event"), Format(output), with_namespace=False)
    for change in client.watch("Event"):
        if change.type != "DELETED" and regards(change.object, wanted, name):
            shown.show(change.type, change.object)
