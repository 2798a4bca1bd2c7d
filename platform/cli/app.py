"""All verbs in one command. Expected errors end in one clear message and an exit code; only bugs show a traceback."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hekla.platform.base.errors import HeklaError
from hekla.platform.cli.apply import apply
from hekla.platform.cli.chat import chat
from hekla.platform.cli.delete import delete
from hekla.platform.cli.describe import describe
from hekla.platform.cli.events import events
from hekla.platform.cli.get import get
from hekla.platform.cli.key import key
from hekla.platform.cli.lifecycle import register
from hekla.platform.cli.logs import logs
from hekla.platform.cli.output import fail
from hekla.platform.cli.scale import scale
from hekla.platform.cli.status import status
from hekla.platform.cli.version import version
from hekla.platform.cli.wait import wait


class Verbs(TyperGroup):
    """The group of all verbs: turns hekla's own errors into messages."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except HeklaError as error:
            fail(error)


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Serve AI models on one Ray cluster: declare a model, and talk to it through one OpenAI endpoint.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not ready in time.",
)


@app.callback()
def options(
    server: Annotated[
        str | None,
        typer.Option(
            help="URL of the platform. Without it: HEKLA_ADDRESS, else what `hekla up` started, else http://127.0.0.1:8000."
        ),
    ] = None,
) -> None:
    """Options that stand before the verb."""


register(app)
app.command("apply")(apply)
app.command("get")(get)
app.command("describe")(describe)
app.command("delete")(delete)
app.command("wait")(wait)
app.command("scale")(scale)
app.command("logs")(logs)
app.command("events")(events)
app.command("status")(status)
app.command("chat")(chat)
app.add_typer(key, name="key")
app.command("version")(version)
