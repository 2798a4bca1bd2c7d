"""`hekla scale`."""

from __future__ import annotations

from typing import Annotated

import typer

from hekla.platform.api.registry import kind_named
from hekla.platform.cli.options import KindName, Namespace, ObjectName, client_of
from hekla.platform.cli.output import say


def scale(
    context: typer.Context,
    kind: KindName,
    name: ObjectName,
    replicas: Annotated[int, typer.Option(min=0, help="How many replicas there are to be.")],
    namespace: Namespace = "default",
) -> None:
    """Set how many replicas an object has."""
    with client_of(context, namespace) as client:
        client.scale(kind, name, replicas)
    say(f"{kind_named(kind).kind} {namespace}/{name} scaled to {replicas}")
