"""The ModelServing controller on a real Ray cluster, with supervisors that start no process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hekla.deployments.naming import actor_name
from hekla.deployments.serving.controller import ModelServingController
from hekla.deployments.serving.placing import Target
from hekla.platform.api.meta import Json, Ref, condition_status
from hekla.platform.base.clock import SystemClock
from hekla.platform.base.ids import SystemIds
from hekla.platform.cluster.ray_cluster import RayCluster
from hekla.platform.control.runtime import ControllerRuntime
from hekla.platform.control.waiting import until
from hekla.platform.store.memory import MemoryStore

Make = Callable[..., Json]
LLM = Ref("ModelServing", "default", "llm")
DEADLINE_S = 90.0


class World:
    """Store and cluster outlive the controllers, which `start` and `stop` make and end."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.store = MemoryStore(self.clock, SystemIds())
        self.cluster = RayCluster(namespace="hekla")

    async def start(self) -> None:
        target = Target("hekla.deployments.fake_supervisor:FakeSupervisor")
        self.controller = ModelServingController(self.store, self.cluster, self.clock, SystemIds(), target)
        self.runtime = ControllerRuntime(self.store, [self.controller], self.clock, SystemIds())
        await self.runtime.start()

    async def stop(self) -> None:
        await self.runtime.stop()
        await self.controller.close()

    def engines(self) -> dict[str, Json]:
        return {engine["metadata"]["name"]: engine for engine in self.store.list("Engine").items}

    def uids(self) -> dict[str, str]:
        return {name: engine["metadata"]["uid"] for name, engine in self.engines().items()}

    async def wait(self, check: Callable[[], bool], what: str) -> None:
        await until(check, self.clock, DEADLINE_S, 0.1, what=what)

    def is_available(self) -> bool:
        return condition_status(self.store.get(LLM), "Available") == "True"


@pytest.mark.ray
async def test_a_serving_lives_heals_is_adopted_and_goes_on_ray(ray_session: str, serving: Make, role: Make) -> None:
    world = World()
    await world.start()
    try:
        world.store.create(serving(1, [role("prefill"), role("decode", 1, workers=1)]))
        await world.wait(lambda: bool(world.engines()) and world.is_available(), "available")
        before, actors = world.uids(), await world.cluster.actors()
        assert len(await world.cluster.placement_groups()) == 2

        await world.stop()
        await world.start()
        await world.wait(world.is_available, "available after a restart of the controller")
        assert (world.uids(), await world.cluster.actors()) == (before, actors)

        await world.cluster.stop_actor(actor_name(world.engines()["llm-0-decode-0-1"]))
        await world.wait(
            lambda: world.uids().get("llm-0-decode-0-1") not in (None, before["llm-0-decode-0-1"]), "replaced"
        )
        await world.wait(world.is_available, "available after a failure")
        changed = {name for name, uid in world.uids().items() if before[name] != uid}
        assert changed == {"llm-0-decode-0-0", "llm-0-decode-0-1"}

        world.store.delete(LLM)
        await world.wait(lambda: not world.store.list("ModelServing").items, "gone")
        assert (await world.cluster.actors(), await world.cluster.placement_groups()) == (set(), set())
    finally:
        await world.stop()
