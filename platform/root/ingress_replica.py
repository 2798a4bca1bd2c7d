"""The Ray Serve deployment around the ingress (`hekla.routing`).

In the *direct* data plane each replica listens on the endpoint's port itself, on an event loop of its own, and shares
the port with the other replicas of its node (SO_REUSEPORT): the kernel spreads connections, Serve starts, checks,
replaces and scales the replicas, and no byte of an answer passes through Ray. In the *haproxy* data plane Serve's
HAProxy owns the port and hands requests to `__serve_build_asgi_app__`'s app. benchmarks/overhead.py compares them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import Any

import ray

from hekla.platform.base.clock import SystemClock
from hekla.platform.base.errors import Temporary
from hekla.platform.base.ids import SystemIds
from hekla.platform.base.tasks import TaskOwner
from hekla.platform.control.waiting import until
from hekla.platform.root.identity_settings import identity_settings
from hekla.platform.root.loop_thread import LoopThread
from hekla.platform.root.platform_link import PlatformLink
from hekla.platform.root.serve_shortcut import shortcut
from hekla.platform.root.settings import PlatformSettings
from hekla.routing.app import Ingress, build_ingress
from hekla.routing.config import AccessLogSettings, GossipSettings, LimitSettings, RoutingSettings, SchedulingSettings
from hekla.routing.exchange import Receive, Scope, Send
from hekla.routing.process_memory import collect_seldom, return_large_blocks
from hekla.routing.server import Listener, serve

logger = logging.getLogger(__name__)

TABLE_WAIT_S = 10.0


class IngressReplica:
    """One replica. Serve calls `__init__`, `check_health` and, to stop it, `__del__`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = PlatformSettings.from_json(settings)
        logging.basicConfig(level=self.settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        return_large_blocks()  # a replica has its process to itself
        self._tasks = TaskOwner("ingress-replica")
        self._listener: Listener | None = None
        self._thread: LoopThread | None = None
        self.ingress: Ingress | None = None
        if self.settings.data_plane == "direct":
            self._thread = LoopThread("hekla-ingress")
            self._thread.submit(self._start_direct()).result()

    async def _start(self) -> Ingress:
        clock, ids = SystemClock(), SystemIds()
        node_ip = ray.util.get_node_ip_address()
        link = PlatformLink(self.settings.ray_namespace, clock)
        self.ingress = build_ingress(
            routing_settings(self.settings, node_ip),
            clock=clock, ids=ids, platform_url=lambda: link.url, platform_token=lambda: link.token,
            peers=lambda: link.peers,
        )  # fmt: skip
        await self.ingress.start()
        self._tasks.spawn(link.stay_known(f"{node_ip}/{os.getpid()}", node_ip, self.ingress.gossip.port), "announce")
        collect_seldom()
        return self.ingress

    async def _start_direct(self) -> None:
        ingress = await self._start()
        # Sharing the port with replicas that know the routes, this one must know them too before it answers. When the
        # platform is away it listens all the same, and says 503.
        with contextlib.suppress(Temporary):
            await until(lambda: ingress.is_synced, SystemClock(), TABLE_WAIT_S, what="routes and keys are read")
        self._listener = await serve(ingress.app, self.settings.host, self.settings.port, reuse_port=True)

    async def __serve_build_asgi_app__(self) -> Any:
        ingress = await self._start()

        # A function: uvicorn takes a bound method for an application of the old, two-step form.
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await ingress.app(scope, receive, send)

        shortcut.open(app)
        return app

    def check_health(self) -> None:
        """Serve replaces the replica when this raises."""
        if self._thread is not None:
            self._thread.submit(asyncio.sleep(0)).result(timeout=5)
            if self._listener is None or not self._listener.is_listening:
                raise RuntimeError("the ingress replica no longer listens")

    async def _stop(self) -> None:
        if self.ingress is not None:
            self.ingress.is_draining = True
        if self._listener is not None:
            await self._listener.stop(self.settings.drain_s)
        if self.ingress is not None:
            await self.ingress.drain(self.settings.drain_s)
            await self.ingress.stop()
        await self._tasks.stop()

    async def __del__(self) -> None:
        # Serve awaits this as the replica's graceful stop; the interpreter's own call at exit finds nothing to do.
        if self._thread is not None:
            await asyncio.wrap_future(self._thread.submit(self._stop()))
            self._thread.stop()
        else:
            await self._stop()


def routing_settings(settings: PlatformSettings, node_ip: str) -> RoutingSettings:
    log = AccessLogSettings(
        enabled=settings.access_log != "off",
        format=settings.access_log_format,
        output="stdout" if settings.access_log == "off" else settings.access_log,
    )
    return RoutingSettings(
        limits=LimitSettings(body_bytes_max=settings.body_bytes_max),
        gossip=GossipSettings(host=node_ip),
        access_log=log,
        identity=identity_settings(settings),
        scheduling=SchedulingSettings(config_file=settings.routing_config),
    )
