"""`hekla delete`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hekla.platform.api.registry import kind_named
from hekla.platform.base.errors import NotFound
from hekla.platform.cli.options import DEFAULT_WAIT, Namespace, OptionalFiles, Timeout, client_of, seconds_of
from hekla.platform.cli.output import ProgressLine, progress, say

if TYPE_CHECKING:
    from hekla.platform.sdk import Client

Target = tuple[str, str, str]
"""Kind, namespace, name."""


def delete(
    context: typer.Context,
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="Kind, plural or short name.")] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The object's name.")] = None,
    filename: OptionalFiles = None,
    namespace: Namespace = "default",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is gone, engines included.")] = True,
    timeout: Timeout = DEFAULT_WAIT,
) -> None:
    """Delete an object, or everything manifests declare, with all that it owns."""
    timeout_s = seconds_of(timeout)
    if bool(filename) == bool(kind and name) or (filename and kind):
        raise typer.BadParameter("give KIND and NAME, or -f")
    with client_of(context, namespace) as client:
        targets = _targets(filename, namespace) if filename else [(str(kind), namespace, str(name))]
        deleted = [(target, _delete(client, target, is_one_of_many=bool(filename))) for target in targets]
        for (its_kind, its_namespace, its_name), uid in deleted if wait else ():
            if uid:
                with ProgressLine(f"waiting until {kind_named(its_kind).kind} {its_name} and its engines are gone"):
                    client.wait_gone(its_kind, its_name, timeout_s, namespace=its_namespace, uid=uid)


def _targets(sources: list[str], namespace: str) -> list[Target]:
    """What the manifests declare, last first: what came later may lean on what came before."""
    from hekla.platform.sdk.manifests import load

    objects = [manifest.object for manifest in load(sources)]
    places = [(obj["kind"], obj["metadata"].get("namespace") or namespace, obj["metadata"]["name"]) for obj in objects]
    return places[::-1]


def _delete(client: Client, target: Target, *, is_one_of_many: bool) -> str:
    """The uid of what was deleted; empty when it was not there."""
    kind, namespace, name = target
    shown = f"{kind_named(kind).kind} {namespace}/{name}"
    try:
        answer = client.delete(kind, name, namespace=namespace)
    except NotFound:
        if not is_one_of_many:
            raise
        progress(f"{shown} is not there")
        return ""
    say(f"{shown} deleted")
    # The object itself while finalizers keep it, else a Status about it.
    return str(answer.get("details", {}).get("uid") or answer["metadata"].get("uid", ""))
