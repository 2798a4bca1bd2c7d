"""The `hekla` command. One file per verb; docs/cli.md lists every verb and option."""

from __future__ import annotations


def main() -> None:
    """Entry point of the installed command and of ``python -m hekla.platform.cli``."""
    from hekla.platform.cli.app import app

    app(prog_name="hekla")
