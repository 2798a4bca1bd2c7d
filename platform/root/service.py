"""The platform in one process: store, controllers and the resource API, wired. Knows nothing of Ray or files."""

from __future__ import annotations

import asyncio
import logging
import os

from hekla.deployments.booster.controller import ModelBoosterController
from hekla.deployments.launch import SUPERVISOR_TARGET
from hekla.deployments.lora.controller import LoraController
from hekla.deployments.naming import actor_name
from hekla.deployments.serving.controller import ModelServingController
from hekla.deployments.serving.placing import Target
from hekla.platform.api.meta import Json, Ref, ref_of
from hekla.platform.base.clock import Clock, rfc3339
from hekla.platform.base.errors import NotFound, Unavailable
from hekla.platform.base.ids import Ids
from hekla.platform.cluster.interface import ActorGone, Cluster
from hekla.platform.control.runtime import ControllerRuntime
from hekla.platform.root.node_summary import summarize
from hekla.platform.root.settings import PlatformSettings
from hekla.platform.server.app import build_app
from hekla.platform.server.guard import TokenGuard
from hekla.platform.store.interface import Store
from hekla.routing.external.controller import ExternalModelProviderController
from hekla.routing.server import Listener, serve

logger = logging.getLogger(__name__)

ENGINE_STOP_TIMEOUT_S = 20.0
LOG_READ_TIMEOUT_S = 10.0


class PlatformService:
    """Start it once, on the event loop that shall own the store. `supervisor` (`module:Class`) runs each engine.

    With an `api_token` the resource API answers only those who send it: the ingress.
    """

    def __init__(
        self,
        settings: PlatformSettings,
        store: Store,
        cluster: Cluster,
        clock: Clock,
        ids: Ids,
        *,
        supervisor: str = SUPERVISOR_TARGET,
        api_token: str = "",
    ) -> None:
        self._settings = settings
        self._store = store
        self._cluster = cluster
        self._clock = clock
        self._api_token = api_token
        self._started_at = clock.now()
        target = Target(supervisor, env={"HEKLA_HOME": str(settings.home_path)})
        self._serving = ModelServingController(store, cluster, clock, ids, target)
        self._runtime = ControllerRuntime(
            store,
            [
                ModelBoosterController(store, clock),
                self._serving,
                LoraController(store, cluster, clock),
                ExternalModelProviderController(store, clock),
            ],
            clock,
            ids,
        )
        self._listener: Listener | None = None

    async def start(self, host: str) -> str:
        """Serve the resource API on a free port of `host`, start the controllers; returns the API's URL."""
        logs = SupervisorLogs(self._store, self._cluster)
        app = build_app(self._store, logs=logs, summary=self.summary, clock=self._clock)
        guarded = TokenGuard(app, self._api_token) if self._api_token else app
        self._listener = await serve(guarded, host, 0)
        await self._serving.adopt()
        await self._runtime.start()
        return f"http://{host}:{self._listener.port}"

    async def summary(self) -> Json:
        found = summarize(self._store, await self._cluster.nodes(), self._settings)
        found["platform"] = {
            "pid": os.getpid(),
            "startedAt": rfc3339(self._started_at),
            "controllers": {name: vars(stats) for name, stats in self._runtime.snapshot().items()},
        }
        return found

    async def stop(self, stop_engines: bool) -> None:
        """Stop controllers and the API; with `stop_engines` the engines too, gently, and their placement groups."""
        await self._runtime.stop()
        await self._serving.close()
        if stop_engines:
            await self._stop_engines()
        # Closing the store ends the watches that the listener would otherwise wait for.
        self._store.close()
        if self._listener is not None:
            await self._listener.stop()

    async def _stop_engines(self) -> None:
        """Engines end and their objects with them: the next start finds servings without engines and makes them anew."""
        engines = self._store.list("Engine").items
        await asyncio.gather(*(self._stop_actor(actor) for actor in await self._cluster.actors()))
        for group in await self._cluster.placement_groups():
            await self._cluster.remove_placement_group(group)
        with self._store.transaction():
            for engine in engines:
                engine["metadata"]["finalizers"] = []
                self._store.delete(ref_of(self._store.update(engine)))

    async def _stop_actor(self, actor: str) -> None:
        try:
            await self._cluster.call(actor, "stop", timeout_s=ENGINE_STOP_TIMEOUT_S)
        except (ActorGone, Unavailable) as error:
            logger.info("engine actor %s did not stop by itself: %s", actor, error)
        await self._cluster.stop_actor(actor)


class SupervisorLogs:
    """Engines' logs, read through their supervisors."""

    def __init__(self, store: Store, cluster: Cluster) -> None:
        self._store = store
        self._cluster = cluster

    async def read(self, namespace: str, name: str, offset: int, limit: int) -> Json:
        actor = actor_name(self._store.get(Ref("Engine", namespace, name)))
        try:
            return dict(await self._cluster.call(actor, "logs", offset, limit, timeout_s=LOG_READ_TIMEOUT_S))
        except ActorGone as error:
            raise NotFound(f"Engine {namespace}/{name} has no process: {error}") from error
