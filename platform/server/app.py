"""The resource API as one ASGI app. docs/api.md lists every path; a test keeps it so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hekla import __version__
from hekla.platform.api.meta import Json
from hekla.platform.api.openapi import openapi
from hekla.platform.base.clock import Clock, SystemClock
from hekla.platform.base.errors import ApiError, BadRequest, Temporary
from hekla.platform.server import answers, writes
from hekla.platform.server.engine_logs import EngineLogs, LogSource
from hekla.platform.server.resources import Resources
from hekla.platform.store.interface import Store

Summary = Callable[[], Json | Awaitable[Json]]


def build_app(store: Store, *, logs: LogSource, summary: Summary, clock: Clock | None = None) -> Starlette:
    """The app over `store`. `summary` is what `GET /hekla/v1/status` answers. To run on the store's event loop."""
    clock = clock or SystemClock()
    resources = Resources(store, clock)
    own = OwnVerbs(store, summary)
    namespaced = "/apis/{group}/{version}/namespaces/{namespace}/{plural}"
    one = namespaced + "/{name}"
    read, update = ["GET"], ["GET", "PUT", "PATCH"]
    return Starlette(
        routes=[
            Route("/healthz", own.healthz, methods=read),
            Route("/openapi/v3", own.openapi, methods=read),
            Route("/hekla/v1/version", own.version, methods=read),
            Route("/hekla/v1/status", own.status, methods=read),
            Route("/hekla/v1/apply", own.apply, methods=["POST"]),
            Route("/hekla/v1/watch", resources.watch_many, methods=read),
            Route("/hekla/v1/engines/{namespace}/{name}/log", EngineLogs(store, logs, clock).log, methods=read),
            Route("/apis", resources.groups, methods=read),
            Route("/apis/{group}", resources.group, methods=read),
            Route("/apis/{group}/{version}", resources.resources, methods=read),
            Route("/apis/{group}/{version}/{plural}", resources.collection, methods=["GET", "POST"]),
            Route(namespaced, resources.collection, methods=["GET", "POST"]),
            Route(one, resources.one, methods=[*update, "DELETE"]),
            Route(one + "/status", resources.status, methods=update),
            Route(one + "/scale", resources.scale, methods=update),
        ],
        exception_handlers={
            ApiError: answers.on_api_error,
            Temporary: answers.on_temporary,
            HTTPException: answers.on_http_error,
            Exception: answers.on_bug,
        },
    )


class OwnVerbs:
    """What hekla adds to Kubernetes' paths."""

    def __init__(self, store: Store, summary: Summary) -> None:
        self._store = store
        self._summary = summary

    async def healthz(self, _request: Request) -> Response:
        return PlainTextResponse("ok")

    async def version(self, _request: Request) -> Response:
        return answers.answer({"hekla": __version__})

    async def openapi(self, _request: Request) -> Response:
        return answers.answer(openapi())

    async def status(self, _request: Request) -> Response:
        summary = self._summary()
        return answers.answer(await summary if isawaitable(summary) else summary)

    async def apply(self, request: Request) -> Response:
        """Body `{"objects": […], "dryRun": bool}`; all of it or nothing."""
        body = await answers.read_object(request)
        unknown = sorted(set(body) - {"objects", "dryRun"})
        if unknown:
            raise BadRequest(f"{unknown[0]}: unknown field; allowed: objects, dryRun")
        dry_run = body.get("dryRun", False)
        if not isinstance(dry_run, bool):
            raise BadRequest(f"dryRun: is {dry_run!r}, must be true or false")
        results = writes.apply(self._store, body.get("objects"), dry_run=dry_run)
        return answers.answer({"results": results})
