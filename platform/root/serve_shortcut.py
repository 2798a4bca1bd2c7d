"""In the *haproxy* data plane: from Serve's HTTP server in a replica straight to the ingress.

Serve wraps every request to a replica in metadata, metrics, two tasks and a queue, which costs several times what the
routing costs. The ingress keeps its own account of all that. So Serve's middleware hook
(`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`) puts this in front of the wrapper: requests go to the ingress of this
process; Serve's own paths (`/-/…`, by which HAProxy asks for health) and every process without an ingress go on as before.
The replica's graceful stop waits for the ingress's requests in flight, which Serve no longer counts.
"""

from __future__ import annotations

import asyncio

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

SERVE_PATHS = "/-/"


class Shortcut:
    """The ingress application of this process and the event loop it lives on; none until one is opened."""

    def __init__(self) -> None:
        self._app: ASGIApp | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, app: ASGIApp) -> None:
        """Call on the application's event loop."""
        self._app, self._loop = app, asyncio.get_running_loop()

    def close(self) -> None:
        self._app = self._loop = None

    def app_here(self) -> ASGIApp | None:
        """The application, when it lives on the running loop."""
        return self._app if self._loop is asyncio.get_running_loop() else None


shortcut = Shortcut()
"""Serve builds its HTTP server out of our sight, in the replica's process: a module is where both can meet."""


class StraightToIngress:
    def __init__(self, app: ASGIApp) -> None:
        self._serve = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ingress = shortcut.app_here()
        if ingress is None or scope["type"] != "http" or scope["path"].startswith(SERVE_PATHS):
            await self._serve(scope, receive, send)
        else:
            await ingress(scope, receive, send)


def middlewares() -> list[Middleware]:
    """What Serve asks for."""
    return [Middleware(StraightToIngress)]
