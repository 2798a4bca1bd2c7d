"""The resource API in this process, on a port of its own, over a store in memory: for tests of whatever talks to hekla.

Real HTTP, real admission, real watches; no Ray, no engines. `edit` plays the controllers' part.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

import uvicorn

from hekla.platform.api.meta import Json
from hekla.platform.base.clock import SystemClock
from hekla.platform.base.ids import SystemIds
from hekla.platform.server.app import build_app
from hekla.platform.server.engine_logs import FakeLogSource
from hekla.platform.store.interface import Store
from hekla.platform.store.memory import MemoryStore

T = TypeVar("T")
STOP_TIMEOUT_S = 30.0


class LocalServer:
    """Use as ``with LocalServer() as server: Client(server.url)``."""

    def __init__(self, store: Store | None = None, port: int = 0) -> None:
        self.store: Store = store or MemoryStore(SystemClock(), SystemIds())
        self.logs = FakeLogSource()
        self.summary: Json = {"endpoint": "", "nodes": [], "models": [], "engines": [], "totals": {}}
        self.url = ""
        # Listening before the server runs: whoever connects early waits in the backlog instead of being refused.
        self._socket = socket.create_server(("127.0.0.1", port), backlog=128)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        app = build_app(self.store, logs=self.logs, summary=lambda: self.summary)
        settings = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="hekla-local-server", daemon=True)

    def edit(self, change: Callable[[Store], T]) -> T:
        """Run `change(store)` where the store lives, on the server's loop; returns or raises what it does."""

        async def run() -> T:
            return change(self.store)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=STOP_TIMEOUT_S)

    def stop(self) -> None:
        """End watches and connections, and release the port. The store stays as it is."""
        self._server.should_exit = True
        self._thread.join(timeout=STOP_TIMEOUT_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._socket.close()
            self._loop.close()

    async def _serve(self) -> None:
        await self._server.serve(sockets=[self._socket])
        # Streams that outlived the grace: a process would take their connections with it, so does this.
        for connection in list(self._server.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"LocalServer({self.url}, {self.store!r})"
