"""What only a real Ray shows: processes, devices, restarts of the platform, and use from inside an actor."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest
import ray

from hekla.platform.base.tasks import TaskOwner
from hekla.platform.cluster.interface import ActorGone, ActorSpec, Bundle
from hekla.platform.cluster.ray_cluster import RayCluster

SCRIPTED = "hekla.platform.cluster.scripted:ScriptedActor"
NAMESPACE = "ray-cluster-test"
DEADLINE_S = 60.0

pytestmark = pytest.mark.ray


@pytest.fixture
async def cluster(ray_session: str) -> AsyncIterator[RayCluster]:
    made = RayCluster(NAMESPACE)
    yield made
    for name in await made.placement_groups():
        await made.remove_placement_group(name)


async def place(cluster: RayCluster, name: str = "g", **resources: float) -> None:
    [node] = await cluster.nodes()
    await cluster.create_placement_group(name, [Bundle(resources, node.node_id)], 30)


async def test_an_actor_gets_its_environment_and_the_devices_of_its_bundle(cluster: RayCluster) -> None:
    await place(cluster, CPU=1, GPU=2)
    await cluster.start_actor(ActorSpec("a", SCRIPTED, {}, "g", env={"HEKLA_TEST": "ä b"}))
    assert await cluster.call("a", "env", "HEKLA_TEST", timeout_s=DEADLINE_S) == "ä b"
    assert sorted((await cluster.call("a", "env", "CUDA_VISIBLE_DEVICES")).split(",")) == ["0", "1"]


async def test_an_actor_whose_process_dies_is_gone_with_rays_reason(cluster: RayCluster) -> None:
    await place(cluster, CPU=1)
    await cluster.start_actor(ActorSpec("a", SCRIPTED, {}, "g"))
    pid = await cluster.call("a", "pid", timeout_s=DEADLINE_S)
    waiting = asyncio.gather(cluster.call("a", "wait_told"), return_exceptions=True)
    await cluster.call("a", "add", 1)
    os.kill(pid, signal.SIGKILL)
    [outcome] = await waiting
    assert isinstance(outcome, ActorGone)
    with pytest.raises(ActorGone, match=r"a is gone: .*died"):
        await cluster.call("a", "add", 1)
    deadline = time.monotonic() + DEADLINE_S
    while await cluster.actors():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_restarted_platform_finds_what_it_made_before(cluster: RayCluster) -> None:
    await place(cluster, CPU=1)
    await cluster.start_actor(ActorSpec("a", SCRIPTED, {"start": 41}, "g"))
    again = RayCluster(NAMESPACE)
    assert await again.placement_groups() == {"g"}
    assert await again.actors() == {"a"}
    assert await again.call("a", "add", 1, timeout_s=DEADLINE_S) == 42
    with pytest.raises(ValueError, match="'g' exists"):
        await place(again, CPU=1)
    await again.remove_placement_group("g")
    assert await cluster.placement_groups() == set()


async def test_platforms_with_other_namespaces_do_not_see_each_other(cluster: RayCluster) -> None:
    await place(cluster, CPU=1)
    await cluster.start_actor(ActorSpec("a", SCRIPTED, {}, "g"))
    other = RayCluster(NAMESPACE + "-2")
    assert await other.placement_groups() == set()
    assert await other.actors() == set()
    with pytest.raises(ActorGone):
        await other.call("a", "add", 1)
    await other.stop_actor("a")
    assert await cluster.call("a", "add", 1, timeout_s=DEADLINE_S) == 1


class Platform:
    """Stands for the platform actor: async, and itself a user of the cluster."""

    async def use(self, node_id: str) -> list[object]:
        cluster = RayCluster(NAMESPACE)
        await cluster.create_placement_group("inside", [Bundle({"CPU": 1}, node_id)], 30)
        await cluster.start_actor(ActorSpec("inside", SCRIPTED, {"start": 1}, "inside"))
        answers = await asyncio.gather(*(cluster.call("inside", "add", 1, timeout_s=60) for _ in range(10)))
        nodes = await cluster.nodes()
        await cluster.stop_actor("inside")
        left = await cluster.actors()
        await cluster.remove_placement_group("inside")
        return [sorted(answers), len(nodes), left, await cluster.placement_groups()]


async def test_the_cluster_can_be_used_from_inside_an_async_actor(cluster: RayCluster) -> None:
    [node] = await cluster.nodes()
    platform = ray.remote(Platform).options(num_cpus=0).remote()
    used = await asyncio.wait_for(asyncio.wrap_future(platform.use.remote(node.node_id).future()), DEADLINE_S)
    assert used == [list(range(2, 12)), 1, set(), set()]
    ray.kill(platform)


async def test_the_event_loop_stays_free_while_ray_is_asked(cluster: RayCluster) -> None:
    """A request to the head takes milliseconds at best; were it made on the loop, no other task would get a turn."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with TaskOwner("test") as tasks:
        tasks.spawn(count(), "count")
        await cluster.nodes()
    assert turns > 3
