"""All verbs in one command. Expected errors end in one clear message and an exit code; only bugs show a traceback."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hekla.platform.base.errors import HeklaError
from hekla.platform.cli import (
    apply,
    chat,
    delete,
    describe,
    events,
    get,
    lifecycle,
    logs,
    scale,
    status,
    version,
    wait,
)
from hekla.platform.cli.output import fail


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


lifecycle.register(app)
app.command("apply")(apply.apply)
app.command("get")(get.get)
app.command("describe")(describe.describe)
app.command("delete")(delete.delete)
app.command("wait")(wait.wait)
app.command("scale")(scale.scale)
app.command("logs")(logs.logs)
app.command("events")(events.events)
app.command("status")(status.status)
app.command("chat")(chat.chat)
app.command("version")(version.version)
