"""The detached actor that holds store and controllers.

Ray restarts it when it dies; the store on the head node's disk and the detached engine actors are still there, so it
re-adopts what is running. Its methods are few and quick: everything else goes through the resource API it serves.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import Future
from typing import Any

import ray

from hekla.platform.base.clock import SystemClock
from hekla.platform.base.ids import SystemIds
from hekla.platform.cluster.ray_cluster import RayCluster
from hekla.platform.root.credentials import api_token, ensure_admin_key
from hekla.platform.root.ingress_peers import IngressPeers
from hekla.platform.root.loop_thread import LoopThread
from hekla.platform.root.service import PlatformService
from hekla.platform.root.settings import PlatformSettings
from hekla.platform.store.sqlite import SqliteStore

PLATFORM_ACTOR = "hekla.platform"
START_TIMEOUT_S = 60.0


class PlatformActor:
    """The plain class; `platform_actor` below wraps it for Ray."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = PlatformSettings.from_json(settings)
        logging.basicConfig(level=self.settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._clock = SystemClock()
        self._peers = IngressPeers(self._clock)
        self._thread = LoopThread("hekla-platform")
        self._service: PlatformService | None = None
        self._token = ""
        self._started: Future[str] = self._thread.submit(self._start())

    async def _start(self) -> str:
        ids = SystemIds()
        self.settings.home_path.mkdir(parents=True, exist_ok=True)
        store = SqliteStore(self.settings.store_path, self._clock, ids)
        cluster = RayCluster(namespace=self.settings.ray_namespace)
        if self.settings.auth != "off":
            self._token = api_token(self.settings.home_path)
            ensure_admin_key(self.settings.home_path, store)
        self._service = PlatformService(self.settings, store, cluster, self._clock, ids, api_token=self._token)
        return await self._service.start(ray.util.get_node_ip_address())

    def api_url(self) -> str:
        """Where the resource API is: `http://host:port`. Raises what starting raised."""
        return self._started.result(timeout=START_TIMEOUT_S)

    def api_token(self) -> str:
        """What the resource API asks of whoever calls it; empty while authentication is off."""
        self._started.result(timeout=START_TIMEOUT_S)
        return self._token

    def pid(self) -> int:
        return os.getpid()

    def announce_ingress(self, replica: str, host: str, port: int) -> list[tuple[str, int]]:
        return self._peers.announce(replica, host, port)

    def shut_down(self, stop_engines: bool) -> None:
        """Stop controllers and the API, and with `stop_engines` every engine and placement group. Objects stay."""
        if self._service is not None:
            self._thread.submit(self._service.stop(stop_engines)).result()


def start_platform_actor(settings: PlatformSettings, node_id: str) -> Any:
    """The running platform actor of this namespace, or a new one on the node (hex id) that keeps the store."""
    return (
        ray.remote(PlatformActor)
        .options(
            name=PLATFORM_ACTOR,
            namespace=settings.ray_namespace,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=3,
            max_concurrency=16,
            enable_task_events=False,
            label_selector={"ray.io/node-id": node_id},
        )
        .remote(settings.to_json())
    )


def find_platform_actor(ray_namespace: str) -> Any | None:
    """The platform actor's handle, or None."""
    try:
        return ray.get_actor(PLATFORM_ACTOR, namespace=ray_namespace)
    except ValueError:
        return None
