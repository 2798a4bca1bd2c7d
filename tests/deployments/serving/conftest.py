"""A small language for ModelServings."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ClassVar

import pytest

from hekla.deployments.booster.controller import ModelBoosterController
from hekla.deployments.fake_supervisor import FakeSupervisor
from hekla.deployments.naming import actor_name
from hekla.deployments.serving.controller import ModelServingController
from hekla.deployments.serving.placing import Target
from hekla.deployments.serving.rehearsal import Rehearsal
from hekla.platform.api.admission import admit
from hekla.platform.api.meta import Json, Ref
from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.ids import SeededIds
from hekla.platform.cluster.fake import FakeCluster
from hekla.platform.cluster.interface import Node
from hekla.platform.control.interface import Controller
from hekla.platform.control.runtime import ControllerRuntime
from hekla.platform.store.memory import MemoryStore


def template(image: str) -> Json:
    container = {
        "name": "engine",
        "image": image,
        "args": ["--model", "/models/m"],
        "resources": {"requests": {"cpu": "1"}},
    }
    return {"metadata": {"annotations": {"hekla.io/engine": "simulated"}}, "spec": {"containers": [container]}}


def role(name: str = "server", replicas: int = 1, workers: int = 0, image: str = "v1", **more: Any) -> Json:
    made: Json = {
        "name": name,
        "replicas": replicas,
        "workerReplicas": workers,
        "entryTemplate": template(image),
        **more,
    }
    if workers:
        made["workerTemplate"] = template(image)
    return made


def serving(replicas: int = 1, roles: list[Json] | None = None, *, template: Json | None = None, **spec: Any) -> Json:
    obj: Json = {
        "apiVersion": "workload.serving.volcano.sh/v1alpha1",
        "kind": "ModelServing",
        "metadata": {"name": "llm"},
        "spec": {"replicas": replicas, "template": {**(template or {}), "roles": roles or [role()]}, **spec},
    }
    return admit(obj)


def stored(obj: Json) -> Json:
    """As the store would hand it out."""
    made = copy.deepcopy(obj)
    made["metadata"] |= {"uid": "serving-uid", "generation": 1}
    return made


@pytest.fixture(name="role")
def role_fixture() -> Callable[..., Json]:
    return role


@pytest.fixture(name="serving")
def serving_fixture() -> Callable[..., Json]:
    return serving


@pytest.fixture
def rehearse() -> Callable[..., Rehearsal]:
    """A serving whose engines all run."""

    def build(*args: Any, **kwargs: Any) -> Rehearsal:
        rehearsal = Rehearsal(stored(serving(*args, **kwargs)))
        rehearsal.settle()
        return rehearsal

    return build


@pytest.fixture(scope="session")
def rehearse_any() -> Callable[..., Rehearsal]:
    """For property tests: one role of two replicas, everything else drawn."""

    def build(replicas: int, budget: int, policy: str, image: str) -> Rehearsal:
        rolling = {"rollingUpdateConfiguration": {"maxUnavailable": budget}}
        obj = serving(replicas, [role(replicas=2, image=image)], rolloutStrategy=rolling, recoveryPolicy=policy)
        rehearsal = Rehearsal(stored(obj))
        rehearsal.settle()
        return rehearsal

    return build


class VirtualSupervisor(FakeSupervisor):
    """A long poll that ends in the bench's time, not in the wall clock's."""

    clock: ClassVar[VirtualClock]

    def __init__(self, launch: Json) -> None:
        super().__init__(launch, clock=self.clock)


class Bench:
    """Store, cluster and controllers in one process and in virtual time; `restart` replaces the controllers."""

    def __init__(self, cluster: FakeCluster, store: MemoryStore, clock: VirtualClock) -> None:
        self.cluster, self.store, self.clock = cluster, store, clock
        self._ids = SeededIds(7)
        self._controller: ModelServingController | None = None
        self._runtime: ControllerRuntime | None = None

    async def start(self) -> None:
        VirtualSupervisor.clock = self.clock
        target = Target(f"{__name__}:VirtualSupervisor")
        self._controller = ModelServingController(self.store, self.cluster, self.clock, self._ids, target)
        controllers: list[Controller] = [self._controller, ModelBoosterController(self.store, self.clock)]
        self._runtime = ControllerRuntime(self.store, controllers, self.clock, self._ids)
        await self._runtime.start()

    async def stop(self) -> None:
        if self._runtime is not None and self._controller is not None:
            await self._runtime.stop()
            await self._controller.close()
        self._runtime = None

    async def rest(self, seconds: int = 5) -> None:
        for _ in range(seconds):
            await self.clock.advance(1)

    async def apply(self, obj: Json) -> None:
        found = [
            one for one in self.store.list(obj["kind"]).items if one["metadata"]["name"] == obj["metadata"]["name"]
        ]
        if found:
            self.store.update({**found[0], "spec": obj["spec"]})
        else:
            self.store.create(obj)
        await self.rest()

    def get(self, name: str = "llm") -> Json:
        return self.store.get(Ref("ModelServing", "default", name))

    def condition(self, kind: str, name: str = "llm") -> Json:
        (found,) = [c for c in self.get(name)["status"]["conditions"] if c["type"] == kind]
        return dict(found)

    def engines(self) -> dict[str, Json]:
        return {engine["metadata"]["name"]: engine for engine in self.store.list("Engine").items}

    def phases(self) -> dict[str, str]:
        return {name: engine["status"]["phase"] for name, engine in self.engines().items()}

    def uids(self) -> dict[str, str]:
        return {name: engine["metadata"]["uid"] for name, engine in self.engines().items()}

    def supervisor(self, name: str) -> FakeSupervisor:
        found = self.cluster.subject(actor_name(self.engines()[name]))
        assert isinstance(found, FakeSupervisor)
        return found

    def events(self) -> list[tuple[str, str]]:
        return [(event["spec"]["reason"], event["spec"]["message"]) for event in self.store.list("Event").items]


def node(name: str, cpus: float = 4.0) -> Node:
    room = {"CPU": cpus, "memory": 8e9}
    return Node(name, name, f"10.0.0.{name[-1]}", room, room)


@pytest.fixture(name="node")
def node_fixture() -> Callable[..., Node]:
    return node


@pytest.fixture
async def make_bench() -> AsyncIterator[Callable[..., Awaitable[Bench]]]:
    """Builds a running bench on the given nodes (or cluster)."""
    benches: list[Bench] = []

    async def build(*nodes: Node, kind: type[FakeCluster] = FakeCluster) -> Bench:
        clock = VirtualClock()
        bench = Bench(kind(nodes, clock), MemoryStore(clock, SeededIds(5)), clock)
        benches.append(bench)
        await bench.start()
        return bench

    yield build
    for bench in benches:
        bench.cluster.check()
        await bench.stop()
        await bench.cluster.close()
