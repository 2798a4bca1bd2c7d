"""`hekla version`."""

from __future__ import annotations

from typing import Annotated

import typer

from hekla import __version__
from hekla.platform.base.errors import HeklaError
from hekla.platform.cli.options import client_of
from hekla.platform.cli.output import DataFormat, say, write_data


def version(
    context: typer.Context,
    output: Annotated[DataFormat, typer.Option("--output", "-o", help="How to print.")] = DataFormat.TABLE,
) -> None:
    """Show the version of this command and of the platform it talks to."""
    with client_of(context) as client:
        try:
            server = str(client.version()["hekla"])
        except HeklaError as error:
            server, problem = "", str(error)
        else:
            problem = ""
    if output is not DataFormat.TABLE:
        write_data({"client": __version__, "server": server or None}, output)
        return
    say(f"client {__version__}")
    say(f"server {server or f'unknown: {problem}'}")
