"""`hekla get`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from hekla.platform.api.meta import Json
from hekla.platform.api.registry import Kind, kind_named
from hekla.platform.cli.options import AllNamespaces, KindName, Labels, Namespace, client_of, labels_of
from hekla.platform.cli.output import Format, as_yaml, listed, progress, say, write_data
from hekla.platform.cli.tables import aligned, headings_of, print_objects, row_of

if TYPE_CHECKING:
    from hekla.platform.sdk import Client


def get(
    context: typer.Context,
    kind: KindName,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One object; all of the kind without it.")] = None,
    namespace: Namespace = "default",
    all_namespaces: AllNamespaces = False,
    selector: Labels = "",
    output: Annotated[Format, typer.Option("--output", "-o", help="How to print.")] = Format.TABLE,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Print every change from now on; end with Ctrl-C.")
    ] = False,
) -> None:
    """List objects of a kind, or show one."""
    shape, labels = kind_named(kind), labels_of(selector)
    with client_of(context, namespace) as client:
        if watch:
            _watch(client, Shown(shape, output, all_namespaces), name, labels)
        elif name is not None:
            _print_one(shape, client.get(kind, name), output)
        else:
            items = client.list(kind, labels=labels, all_namespaces=all_namespaces)
            _print_many(shape, items, output, with_namespace=all_namespaces)
            if not items and output is Format.TABLE:
                progress(f"no {shape.plural}" + ("" if all_namespaces else f" in namespace {namespace}"))


def _print_one(kind: Kind, obj: Json, output: Format) -> None:
    if output in (Format.JSON, Format.YAML):
        write_data(obj, output)
    else:
        _print_many(kind, [obj], output, with_namespace=False)


def _print_many(kind: Kind, items: list[Json], output: Format, *, with_namespace: bool) -> None:
    if output in (Format.JSON, Format.YAML):
        write_data(listed(items), output)
    elif output is Format.NAME:
        for obj in items:
            say(f"{kind.singular}/{obj['metadata']['name']}")
    elif items:
        print_objects(kind, items, with_namespace=with_namespace)


class Shown:
    """Prints one object after the other; columns grow when a cell needs more room."""

    def __init__(self, kind: Kind, output: Format, with_namespace: bool) -> None:
        self.kind = kind
        self.output = output
        self.with_namespace = with_namespace
        self._widths = headings_of(kind, with_namespace=with_namespace)
        self._is_begun = False

    def show(self, change: str, obj: Json) -> None:
        if self.output is Format.JSON:
            say(json.dumps({"type": change, "object": obj}, ensure_ascii=False))
        elif self.output is Format.YAML:
            say(f"---\n{as_yaml({'type': change, 'object': obj})}")
        elif self.output is Format.NAME:
            say(f"{self.kind.singular}/{obj['metadata']['name']} {change.lower()}")
        else:
            self._show_row(change, row_of(self.kind, obj, with_namespace=self.with_namespace))

    def _show_row(self, change: str, row: list[str]) -> None:
        if not self._is_begun:
            self._is_begun = True
            first = headings_of(self.kind, with_namespace=self.with_namespace)
            self._widths = [max(one, other, key=len) for one, other in zip(first, row, strict=True)]
            say(aligned([first, self._widths])[0])
        self._widths = [max(one, other, key=len) for one, other in zip(self._widths, row, strict=True)]
        say(aligned([row, self._widths])[0] + ("   (deleted)" if change == "DELETED" else ""))


def _watch(client: Client, shown: Shown, name: str | None, labels: dict[str, str]) -> None:
    for change in client.watch(shown.kind.kind, name, labels=labels, all_namespaces=shown.with_namespace):
        shown.show(change.type, change.object)
