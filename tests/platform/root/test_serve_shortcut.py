from __future__ import annotations

import asyncio
from typing import Any

from hekla.platform.root.serve_shortcut import Shortcut, StraightToIngress, middlewares, shortcut
from hekla.platform.root.settings import PlatformSettings


class Heard:
    """An application that remembers which paths it was asked for."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])


async def nothing(*_: Any) -> Any:
    raise AssertionError("nobody reads or writes here")


async def ask(app: StraightToIngress, *paths: str, kind: str = "http") -> None:
    for path in paths:
        await app({"type": kind, "path": path}, nothing, nothing)


async def test_requests_go_to_the_ingress_and_serves_own_paths_to_serve() -> None:
    serve, ingress = Heard(), Heard()
    shortcut.open(ingress)
    try:
        await ask(StraightToIngress(serve), "/v1/models", "/-/healthz", "/-/routes", "/health")
        await ask(StraightToIngress(serve), "/socket", kind="websocket")
    finally:
        shortcut.close()
    assert ingress.paths == ["/v1/models", "/health"]
    assert serve.paths == ["/-/healthz", "/-/routes", "/socket"]


async def test_without_an_ingress_everything_goes_to_serve() -> None:
    serve = Heard()
    await ask(StraightToIngress(serve), "/v1/models")
    assert serve.paths == ["/v1/models"]


async def test_an_ingress_of_another_event_loop_is_not_called_from_this_one() -> None:
    found, ingress = Shortcut(), Heard()

    async def elsewhere() -> None:
        found.open(ingress)

    await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
    assert found.app_here() is None


def test_serve_finds_the_hook_by_the_path_in_its_environment() -> None:
    path = PlatformSettings(data_plane="haproxy").serve_environment["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]
    module, _, name = path.partition(":")
    assert (module, name) == (middlewares.__module__, middlewares.__name__)
    classes: list[Any] = [middleware.cls for middleware in middlewares()]
    assert classes == [StraightToIngress]
