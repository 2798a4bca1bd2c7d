"""How the CLI speaks: results on standard output, everything else on standard error, exit codes that mean something."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Any, NoReturn, Self

import typer

from hekla.platform.api.meta import Json

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_NOT_READY = 3
"""Not ready, or not gone, in time."""


class Format(StrEnum):
    """Values of `-o` where objects are printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class DataFormat(StrEnum):
    """Values of `-o` where there are no object names."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def fail(error: Exception) -> NoReturn:
    """Say what went wrong on standard error and end with the exit code that belongs to it."""
    typer.secho(f"hekla: {error}", fg=typer.colors.RED, err=True)
    # NotReady is a TimeoutError; asking for that class itself would import the SDK with its HTTP client.
    raise typer.Exit(EXIT_NOT_READY if isinstance(error, TimeoutError) else EXIT_FAILURE) from error


def progress(text: str) -> None:
    """A line for whoever waits."""
    typer.secho(text, dim=True, err=True)


def warn(text: str) -> None:
    typer.secho(f"hekla: {text}", fg=typer.colors.YELLOW, err=True)


def say(text: str) -> None:
    """A line of result."""
    typer.echo(text)


def write_data(value: Any, form: str) -> None:
    """JSON or YAML for programs."""
    if form == "json":
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        typer.echo(as_yaml(value), nl=False)


def as_yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=False, width=120)


def listed(items: list[Json]) -> Json:
    return {"apiVersion": "v1", "kind": "List", "items": items}


def is_terminal() -> bool:
    """True when a person watches standard error."""
    return sys.stderr.isatty()


class ProgressLine:
    """One line that changes in place on a terminal; elsewhere a line for each change. Use as a context manager."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._shown = ""
        self._status: Any = None

    def __enter__(self) -> Self:
        if is_terminal():
            from rich.console import Console
            from rich.text import Text

            self._status = Console(stderr=True).status(Text(self._title))
            self._status.start()
        else:
            self.show("")
        return self

    def show(self, text: str) -> None:
        line = f"{self._title}: {text}" if text else self._title
        if line == self._shown:
            return
        self._shown = line
        if self._status is None:
            progress(line)
            return
        from rich.text import Text

        self._status.update(Text(line))

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
