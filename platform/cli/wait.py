"""`hekla wait`."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from hekla.platform.cli.options import DEFAULT_WAIT, KindName, Namespace, ObjectName, Timeout, client_of, seconds_of
from hekla.platform.cli.output import ProgressLine, say

if TYPE_CHECKING:
    from hekla.platform.sdk import Client


class Goal(StrEnum):
    READY = "ready"
    DELETE = "delete"


def wait(
    context: typer.Context,
    kind: KindName,
    name: ObjectName,
    namespace: Namespace = "default",
    goal: Annotated[Goal, typer.Option("--for", help="What to wait for.")] = Goal.READY,
    timeout: Timeout = DEFAULT_WAIT,
) -> None:
    """Wait until an object is ready, or gone, showing how far its engines are. Exit code 3 when the time is up."""
    timeout_s = seconds_of(timeout)
    with client_of(context, namespace) as client:
        if goal is Goal.READY:
            wait_for(client, kind, name, timeout_s, namespace=namespace)
        else:
            with ProgressLine(f"waiting until {kind} {name} and its engines are gone"):
                client.wait_gone(kind, name, timeout_s)
            say(f"{kind} {namespace}/{name} gone")


def wait_for(client: Client, kind: str, name: str, timeout_s: float, *, namespace: str) -> None:
    """Wait until it is ready, with a line of progress. Raises NotReady."""
    began = time.monotonic()
    with ProgressLine(f"{kind} {name}") as line:
        client.wait_ready(kind, name, timeout_s, lambda progress: line.show(str(progress)), namespace=namespace)
    say(f"{kind} {namespace}/{name} ready after {time.monotonic() - began:.0f} s")
