"""`hekla apply`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hekla.platform.api.registry import kind_named
from hekla.platform.cli.options import DEFAULT_WAIT, Files, Namespace, Timeout, client_of, seconds_of
from hekla.platform.cli.output import say
from hekla.platform.cli.wait import wait_for

if TYPE_CHECKING:
    from hekla.platform.sdk import Client


def apply(
    context: typer.Context,
    filename: Files,
    namespace: Namespace = "default",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, change nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until everything applied is ready.")] = False,
    timeout: Timeout = DEFAULT_WAIT,
) -> None:
    """Create or update what manifests declare: all of it, or nothing when something in them is wrong."""
    timeout_s = seconds_of(timeout)
    with client_of(context, namespace) as client:
        _apply(client, filename, dry_run=dry_run, timeout_s=timeout_s if wait and not dry_run else None)


def apply_and_wait(endpoint: str, sources: list[str]) -> None:
    """Apply manifests to the platform at `endpoint` and wait until all is ready, telling how it goes."""
    from hekla.platform.sdk import Client

    with Client(endpoint) as client:
        _apply(client, sources, dry_run=False, timeout_s=seconds_of(DEFAULT_WAIT))


def _apply(client: Client, sources: list[str], *, dry_run: bool, timeout_s: float | None) -> None:
    from hekla.platform.sdk.manifests import load

    objects = [manifest.object for manifest in load(sources)]
    results = client.apply(objects, dry_run=dry_run)
    for result in results:
        say(f"{result}{' (dry run)' if dry_run else ''}")
    if timeout_s is None:
        return
    for result in results:
        if kind_named(result.kind).ready_condition is not None:
            wait_for(client, result.kind, result.name, timeout_s, namespace=result.namespace)
