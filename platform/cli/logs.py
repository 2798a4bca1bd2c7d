"""`hekla logs`: one engine's log, or those of all engines of a model, each line with its engine's name."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from hekla.platform.api.meta import Json, matches_labels
from hekla.platform.base.errors import HeklaError, NotFound
from hekla.platform.cli.options import Namespace, client_of
from hekla.platform.cli.output import say, warn

if TYPE_CHECKING:
    from hekla.platform.sdk import AsyncClient, Client


def logs(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ENGINE|MODEL", help="An engine, or whatever has engines: a ModelBooster, "
                                        "ModelServing, ModelServer, ModelRoute, or a model's name.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it is written; end with Ctrl-C.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last lines, this many.")] = None,
    namespace: Namespace = "default",
) -> None:  # fmt: skip
    """Print the log of an engine, or of all engines of a model."""
    with client_of(context, namespace) as client:
        engines = engines_of(client, name)
        if len(engines) == 1:
            for text in client.logs(engines[0], follow=follow, tail_lines=tail):
                typer.echo(text, nl=False)
            return
    asyncio.run(_interleaved(client.base_url, namespace, engines, follow=follow, tail=tail))


def engines_of(client: Client, name: str) -> list[str]:
    """Names of the engines that `name` means. Raises NotFound."""
    from hekla.platform.sdk.waiting import descendants

    engines = client.list("Engine")
    if any(engine["metadata"]["name"] == name for engine in engines):
        return [name]
    roots = [obj for kind in ("ModelBooster", "ModelServing") for obj in client.list(kind)]
    chosen = [
        engine
        for root in roots
        if root["metadata"]["name"] == name
        for engine in descendants(root, [*roots, *engines])
        if engine["kind"] == "Engine"
    ] or _routed(client, name, engines)
    if not chosen:
        raise NotFound(
            f"no engine is named {name}, and no model of that name has engines (yet); see `hekla get engines`"
        )
    return sorted({str(engine["metadata"]["name"]) for engine in chosen})


def _routed(client: Client, name: str, engines: list[Json]) -> list[Json]:
    """Engines that a ModelServer, a ModelRoute or a model name leads to."""
    servers = {name}
    for route in client.list("ModelRoute"):
        if name in (
            route["metadata"]["name"],
            route["spec"].get("modelName"),
            *(route["spec"].get("loraAdapters") or ()),
        ):
            rules = route["spec"].get("rules") or ()
            servers |= {
                target.get("modelServerName", "") for rule in rules for target in rule.get("targetModels") or ()
            }
    wanted = [
        server["spec"]["workloadSelector"].get("matchLabels") or {}
        for server in client.list("ModelServer")
        if server["metadata"]["name"] in servers
    ]
    return [engine for engine in engines if any(labels and matches_labels(engine, labels) for labels in wanted)]


async def _interleaved(url: str, namespace: str, engines: list[str], *, follow: bool, tail: int | None) -> None:
    from hekla.platform.sdk import AsyncClient

    width = max(map(len, engines))
    async with AsyncClient(url, namespace=namespace) as client:
        if follow:
            async with asyncio.TaskGroup() as group:
                for engine in engines:
                    group.create_task(_print_lines(client, engine, width, follow=True, tail=tail), name=engine)
        else:
            for engine in engines:
                await _print_lines(client, engine, width, follow=False, tail=tail)


async def _print_lines(client: AsyncClient, engine: str, width: int, *, follow: bool, tail: int | None) -> None:
    """One engine's lines; what goes wrong with one engine does not end the others."""
    rest = ""
    try:
        async for text in client.logs(engine, follow=follow, tail_lines=tail):
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                say(f"{engine.ljust(width)} | {line}")
    except HeklaError as error:
        warn(f"{engine}: {error}")
    if rest:
        say(f"{engine.ljust(width)} | {rest}")
