"""Objects as tables. What a kind shows is said by its `columns`; this file knows no kind."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from hekla.platform.api.meta import Json
from hekla.platform.api.registry import Column, Kind
from hekla.platform.base.clock import parse_rfc3339

COLORS = {
    "Ready": "green", "True": "green", "Failed": "red", "Warning": "yellow", "Starting": "yellow", "Fetching": "yellow",
    "Loading": "yellow", "Draining": "yellow", "Pending": "yellow", "False": "red",
}  # fmt: skip

GAP = "   "


def print_table(headings: list[str], rows: Iterable[list[str]]) -> None:
    """Columns as wide as their widest cell. On a terminal states are coloured; elsewhere the text is plain."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        print("\n".join(aligned([headings, *rows])))
        return
    table = Table(*headings, box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell, style=COLORS.get(cell, "")) for cell in row))
    console.print(table)


def aligned(rows: Iterable[list[str]]) -> list[str]:
    """Lines with the cells of each column below each other."""
    lines = [list(row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return [GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def headings_of(kind: Kind, *, with_namespace: bool) -> list[str]:
    first = ["NAMESPACE", "NAME"] if with_namespace else ["NAME"]
    return [*first, *(column.heading for column in kind.columns), "AGE"]


def row_of(kind: Kind, obj: Json, *, with_namespace: bool) -> list[str]:
    meta = obj["metadata"]
    first = [meta.get("namespace", ""), meta["name"]] if with_namespace else [meta["name"]]
    return [*first, *(cell(obj, column) for column in kind.columns), age(meta.get("creationTimestamp", ""))]


def print_objects(kind: Kind, objects: Iterable[Json], *, with_namespace: bool = False) -> None:
    rows = [row_of(kind, obj, with_namespace=with_namespace) for obj in objects]
    print_table(headings_of(kind, with_namespace=with_namespace), rows)


def cell(obj: Json, column: Column) -> str:
    """The column's text; `-` when the object has no such value yet."""
    if callable(column.value):
        return str(column.value(obj)) or "-"
    value: Any = obj
    for step in column.value.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return "-" if value in (None, "") else str(value).replace("\n", " ")


def age(since: str, now: float | None = None) -> str:
    """`3d4h`, `5m12s`: how long ago, in the two largest units."""
    try:
        seconds = int((time.time() if now is None else now) - parse_rfc3339(since))
    except ValueError:
        return "-"
    return span(max(0, seconds))


def span(seconds: int) -> str:
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    parts: list[str] = []
    for unit, size in units:
        count, seconds = divmod(seconds, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return "".join(parts[:2])
