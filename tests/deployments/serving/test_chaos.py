"""Random faults against the whole controller, from a seed: whatever happens, it heals and leaves nothing over."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hekla.deployments.naming import actor_name
from hekla.platform.api.meta import Json, Ref
from hekla.platform.base.errors import NotFound
from hekla.platform.cluster.interface import Node

Make = Callable[..., Json]
POLICIES = ("RoleRecreate", "ServingGroupRecreate", "None")
HEAL_S_MAX = 400
"""Of virtual time: a crash loop's longest wait, a grace, a drain and some."""
LLM = Ref("ModelServing", "default", "llm")


class Chaos:
    """One seed's sequence of faults and changes."""

    def __init__(self, bench: Any, seed: int, serving: Make, role: Make) -> None:
        self.bench, self.random, self.serving, self.role = bench, random.Random(seed), serving, role
        self.policy = self.random.choice(POLICIES)
        self.grace = self.random.choice([0, 5])
        self.replicas, self.image, self.nodes = 2, 0, 3

    def spec(self) -> Json:
        roles = [self.role("prefill", 1, workers=1, image=f"v{self.image}"), self.role("decode", 1)]
        template = {"restartGracePeriodSeconds": self.grace}
        return self.serving(self.replicas, roles, template=template, recoveryPolicy=self.policy)

    def engine(self) -> Json | None:
        engines = list(self.bench.engines().values())
        return self.random.choice(engines) if engines else None

    async def kill_actor(self) -> None:
        engine = self.engine()
        if engine is not None and actor_name(engine) in await self.bench.cluster.actors():
            self.bench.cluster.kill_actor(actor_name(engine))

    async def crash_engine(self) -> None:
        engine = self.engine()
        if engine is not None and actor_name(engine) in await self.bench.cluster.actors():
            supervisor = self.bench.cluster.subject(actor_name(engine))
            if supervisor is not None:
                supervisor.crash()

    async def delete_object(self) -> None:
        engine = self.engine()
        if engine is not None:
            try:
                self.bench.store.delete(Ref("Engine", "default", engine["metadata"]["name"]))
            except NotFound:
                pass

    async def lose_node(self) -> None:
        nodes = await self.bench.cluster.nodes()
        if len(nodes) > 1:
            self.bench.cluster.remove_node(self.random.choice(nodes).node_id)

    async def gain_node(self) -> None:
        self.nodes += 1
        room = {"CPU": 4.0, "memory": 8e9}
        self.bench.cluster.add_node(Node(f"m{self.nodes}", f"m{self.nodes}", "10.1.1.1", room, room))

    async def restart_controller(self) -> None:
        await self.bench.stop()
        await self.bench.start()

    async def change_template(self) -> None:
        self.image += 1
        self.bench.store.update({**self.bench.get(), "spec": self.spec()["spec"]})

    async def scale(self) -> None:
        self.replicas = self.random.randint(0, 3)
        self.bench.store.update({**self.bench.get(), "spec": self.spec()["spec"]})

    def is_healed(self) -> bool:
        status = self.bench.get()["status"]
        counts = {status["availableReplicas"], status["updatedReplicas"], status["replicas"], self.replicas}
        leaving = [e for e in self.bench.engines().values() if e["metadata"].get("deletionTimestamp")]
        return len(counts) == 1 and not leaving

    async def step(self) -> str:
        faults = [
            self.kill_actor, self.crash_engine, self.delete_object, self.lose_node, self.gain_node,
            self.restart_controller, self.change_template, self.scale,
        ]  # fmt: skip
        fault = self.random.choice(faults)
        await fault()
        return fault.__name__


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_happens_it_heals_and_leaves_nothing_over(
    make_bench: Callable[..., Awaitable[Any]], node: Callable[..., Node], serving: Make, role: Make, seed: int
) -> None:
    bench = await make_bench(node("n1"), node("n2"), node("n3"))
    chaos = Chaos(bench, seed, serving, role)
    await bench.apply(chaos.spec())
    story = []
    for _ in range(12):
        story.append(await chaos.step())
        await bench.clock.advance(chaos.random.choice([0, 0.1, 1, 3]))
        bench.cluster.check()
    for _ in range(3):
        await chaos.gain_node()
    what = f"seed {seed}: {story}, policy {chaos.policy}"
    for _ in range(HEAL_S_MAX // 5):
        if chaos.is_healed():
            break
        await bench.rest(5)
    told = f"{what}; {bench.get()['status']['conditions']}"
    assert chaos.is_healed(), told
    engines = bench.engines().values()
    assert {engine["status"]["phase"] for engine in engines} <= {"Ready"}, told
    assert await bench.cluster.actors() == {actor_name(engine) for engine in engines}, told
    groups = {engine["spec"]["placementGroup"] for engine in engines}
    assert await bench.cluster.placement_groups() == groups, told
    bench.store.delete(LLM)
    for _ in range(HEAL_S_MAX // 5):
        if not bench.store.list("ModelServing").items:
            break
        await bench.rest(5)
    assert (await bench.cluster.actors(), await bench.cluster.placement_groups()) == (set(), set()), told
    assert bench.engines() == {}, told
