"""Options and arguments that several verbs share, and the client they make."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from hekla.platform.base.errors import BadRequest

if TYPE_CHECKING:
    from hekla.platform.sdk import Client

DEFAULT_WAIT = "10m"

Namespace = Annotated[
    str,
    typer.Option(
        "--namespace", "-n", help="Namespace to work in; objects that name one keep theirs.", envvar="HEKLA_NAMESPACE"
    ),
]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="All namespaces.")]
Labels = Annotated[str, typer.Option("--selector", "-l", help="Only objects with these labels: key=value,key=value.")]
KindName = Annotated[
    str, typer.Argument(metavar="KIND", help="Kind, plural or short name: ModelBooster, modelboosters, mb.")
]
ObjectName = Annotated[str, typer.Argument(metavar="NAME", help="The object's name.")]
Files = Annotated[
    list[str], typer.Option("--filename", "-f", help="Manifest file, folder, or - for standard input; repeatable.")
]
OptionalFiles = Annotated[
    list[str] | None,
    typer.Option("--filename", "-f", help="Manifest file, folder, or - for standard input; repeatable."),
]
Timeout = Annotated[str, typer.Option(help="Longest wait: 90, 90s, 10m, 1h.")]


def client_of(context: typer.Context, namespace: str = "default") -> Client:
    """A client for the platform that `--server`, the environment or `hekla up` names."""
    from hekla.platform.sdk import Client

    return Client(context.find_root().params.get("server"), namespace=namespace)


def labels_of(text: str) -> dict[str, str]:
    """`a=b,c=d` as a dict. Raises BadRequest."""
    labels: dict[str, str] = {}
    for term in filter(None, text.split(",")):
        key, equals, value = term.partition("=")
        if not equals or not key.strip():
            raise BadRequest(f"--selector: {term!r} is not understood; write key=value, joined by commas")
        labels[key.strip()] = value.strip()
    return labels


def seconds_of(text: str) -> float:
    """`90`, `90s`, `10m`, `1h` in seconds. Raises BadRequest."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None:
        raise BadRequest(f"--timeout: {text!r} is not a duration; write 90, 90s, 10m or 1h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
