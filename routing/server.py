"""Serves the ingress with uvicorn inside an event loop that runs already (a Ray Serve replica's, or a test's)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import uvicorn

from hekla.platform.base.tasks import TaskOwner
from hekla.routing.http_protocol import BoundedHeads

KEEPALIVE_S = 75
"""Longer than HAProxy and cloud balancers keep an idle connection (60 s): the client side closes first."""
BACKLOG = 4096
"""Connections waiting to be accepted when many clients arrive at once."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    def capture_signals(self) -> Any:
        """Signals belong to the process's owner."""
        return contextlib.nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


class Listener:
    """A running server; `port` is the one it got."""

    def __init__(self, server: _Server, sock: socket.socket) -> None:
        self._server, self._socket, self._tasks = server, sock, TaskOwner("listener")
        self._task = self._tasks.spawn(server.serve(sockets=[sock]), "serve")
        self.port: int = sock.getsockname()[1]

    @property
    def is_listening(self) -> bool:
        """False before it began, once it is told to stop, and when its task died."""
        return self._server.listening.is_set() and not self._server.should_exit and not self._task.done()

    async def stop(self, grace_s: float = 1.0) -> None:
        """Stops accepting, gives open connections `grace_s`, then closes them."""
        self._server.should_exit = True
        done, _ = await asyncio.wait({self._task}, timeout=grace_s)
        if not done:
            self._server.force_exit = True
            await asyncio.wait({self._task}, timeout=5.0)
        await self._tasks.stop()
        self._socket.close()

    async def wait_listening(self) -> None:
        listening = self._tasks.spawn(self._server.listening.wait(), "listening")
        await asyncio.wait({listening, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()


async def serve(
    app: Any, host: str, port: int, *, reuse_port: bool = False, protocol: type[BoundedHeads] = BoundedHeads
) -> Listener:
    """Listen on `host:port` (0: a free port) until the listener is stopped. Raises OSError when the port is taken.

    `reuse_port` lets several ingress processes of one machine share the port; the kernel spreads connections. Heads of
    requests are bounded as `protocol` says.
    """
    sock = _bound(host, port, reuse_port)
    config = uvicorn.Config(
        app, loop="none", http=protocol, ws="none", lifespan="off", access_log=False, log_level="warning",
        log_config=None, server_header=False, timeout_keep_alive=KEEPALIVE_S, backlog=BACKLOG,
        proxy_headers=False, interface="asgi3",
    )  # fmt: skip
    listener = Listener(_Server(config), sock)
    await listener.wait_listening()
    return listener


def _bound(host: str, port: int, reuse_port: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock
