"""Every verb and option, every client method and every path is in the documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from hekla.platform.base import limits
from hekla.platform.base.clock import SystemClock
from hekla.platform.base.ids import SystemIds
from hekla.platform.cli.app import app
from hekla.platform.sdk import AsyncClient, Client
from hekla.platform.server import asked, engine_logs, watch_stream, writes
from hekla.platform.server.app import build_app
from hekla.platform.store.memory import MemoryStore

DOCS = Path(__file__).parents[3] / "docs"
VERBS: dict[str, Any] = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def sections(page: str) -> dict[str, str]:
    """The text below each second-level heading."""
    parts = re.split(r"^## (.+)$", (DOCS / page).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_and_option_is_documented_and_has_help(verb: str) -> None:
    text = sections("cli.md")[f"hekla {verb}"]
    assert VERBS[verb].help
    for parameter in VERBS[verb].params:
        if parameter.name == "help":
            continue
        names = [parameter.metavar] if parameter.param_type_name == "argument" else parameter.opts
        assert parameter.help, f"{parameter.name} has no help"
        for name in names:
            assert f"`{name}`".replace("|", "\\|") in text, f"{name} is missing under `## hekla {verb}`"


def test_no_verb_is_documented_that_is_not_there() -> None:
    assert {name.removeprefix("hekla ") for name in sections("cli.md")} == set(VERBS)


def test_the_options_before_the_verb_are_documented() -> None:
    head = (DOCS / "cli.md").read_text().split("\n## ")[0]
    for parameter in typer.main.get_command(app).params:
        if parameter.name != "help":
            assert f"`{parameter.opts[0]}`" in head


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_every_client_method_is_documented_and_has_a_row(client: type) -> None:
    rows = sections("sdk.md")["Methods"]
    for name, method in vars(client).items():
        if callable(method) and not name.startswith("_"):
            assert f"| `{name}(" in rows, f"{name} is missing"


def test_every_path_is_documented_with_its_methods_and_no_other() -> None:
    store = MemoryStore(SystemClock(), SystemIds())
    routes: Any = build_app(store, logs=engine_logs.FakeLogSource(), summary=dict).routes
    table = re.findall(r"^\| `(/[^`]*)` \| ([A-Z, ]+) \|", sections("api.md")["Paths"], flags=re.MULTILINE)
    documented = {path: set(methods.split(", ")) for path, methods in table}
    everywhere = "/apis/{group}/{version}/{plural}"
    served = {route.path: set(route.methods) - {"HEAD"} for route in routes}
    assert served.pop(everywhere) == {"GET", "POST"}, "POST is there to be refused with a reason"
    assert documented.pop(everywhere) == {"GET"}
    assert documented == served


@pytest.mark.parametrize(
    "limit",
    [
        limits.API_BODY_BYTES_MAX,
        limits.WATCH_HISTORY_EVENTS_MAX,
        limits.WATCH_QUEUE_EVENTS_MAX,
        writes.APPLY_OBJECTS_MAX,
        watch_stream.WATCH_TIMEOUT_S_MAX,
        watch_stream.WATCH_TIMEOUT_S_DEFAULT,
        engine_logs.LOG_TAIL_LINES_MAX,
    ],
)
def test_every_limit_is_documented(limit: int) -> None:
    assert f"{limit:,}" in (DOCS / "api.md").read_text()


def test_every_query_parameter_the_server_reads_is_documented() -> None:
    folder = Path(asked.__file__).parent
    source = "\n".join(file.read_text() for file in folder.glob("*.py"))
    read = set(re.findall(r'query_params\.get\("(\w+)"|(?:flag|whole_number|_equalities)\(\s*request, "(\w+)"', source))
    names = {name for pair in read for name in pair if name} - {"kinds"}
    assert len(names) >= 10
    for name in names:
        assert f"`{name}`" in sections("api.md")["Queries"], f"{name} is missing"
