"""Store, cluster and the controllers of deployments in one process, in virtual time, with supervisors without engines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ClassVar

import pytest

from hekla.deployments.fake_supervisor import FakeSupervisor
from hekla.deployments.lora.controller import LoraController
from hekla.deployments.naming import LABEL_SERVING, actor_name
from hekla.deployments.serving.controller import ModelServingController
from hekla.deployments.serving.placing import Target
from hekla.platform.api.admission import admit
from hekla.platform.api.meta import Json, Ref
from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.ids import SeededIds
from hekla.platform.cluster.fake import FakeCluster
from hekla.platform.cluster.interface import Node
from hekla.platform.control.runtime import ControllerRuntime
from hekla.platform.store.memory import MemoryStore

SERVER = Ref("ModelServer", "default", "llm")


class VirtualSupervisor(FakeSupervisor):
    clock: ClassVar[VirtualClock]
    refused: ClassVar[dict[str, str]]

    def __init__(self, launch: Json) -> None:
        super().__init__(launch, clock=self.clock)
        self.adapter_api.refused = self.refused


def serving(replicas: int, *args: str) -> Json:
    container: Json = {"name": "engine", "image": "v1", "args": ["--model", "/models/m", *args]}
    container |= {"resources": {"requests": {"cpu": "1"}}}
    template = {"metadata": {"annotations": {"hekla.io/engine": "simulated"}}, "spec": {"containers": [container]}}
    role = {"name": "server", "replicas": 1, "workerReplicas": 0, "entryTemplate": template}
    return admit(
        {
            "apiVersion": "workload.serving.volcano.sh/v1alpha1",
            "kind": "ModelServing",
            "metadata": {"name": "llm"},
            "spec": {"replicas": replicas, "template": {"roles": [role], "restartGracePeriodSeconds": 600}},
        }
    )


def model_server(*adapters: Json, **spec: Any) -> Json:
    return admit(
        {
            "apiVersion": "networking.serving.volcano.sh/v1alpha1",
            "kind": "ModelServer",
            "metadata": {"name": SERVER.name},
            "spec": {
                "model": "m",
                "inferenceEngine": "Simulated",
                "workloadSelector": {"matchLabels": {LABEL_SERVING: "llm"}},
                "loraAdapters": list(adapters),
                **spec,
            },
        }
    )


class Bench:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        room = {"CPU": 8.0, "memory": 8e9}
        self.cluster = FakeCluster([Node("n1", "n1", "10.0.0.1", room, room)], self.clock)
        self.store = MemoryStore(self.clock, SeededIds(5))
        self._ids = SeededIds(7)
        self._told = 0
        self.refused: dict[str, str] = {}

    async def start(self) -> None:
        VirtualSupervisor.clock, VirtualSupervisor.refused = self.clock, self.refused
        target = Target(f"{__name__}:VirtualSupervisor")
        self._serving = ModelServingController(self.store, self.cluster, self.clock, self._ids, target)
        lora = LoraController(self.store, self.cluster, self.clock)
        self._runtime = ControllerRuntime(self.store, [self._serving, lora], self.clock, self._ids)
        await self._runtime.start()

    async def stop(self) -> None:
        await self._runtime.stop()
        await self._serving.close()

    async def rest(self, seconds: float = 5) -> None:
        for _ in range(int(seconds)):
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

    async def asked(self, *waiting: str, **counts: int) -> None:
        """An ingress replica's report, with all it has counted so far."""
        server = self.store.get(SERVER)
        now_s, self._told = self.clock.now(), self._told + 1
        report = {"at": now_s + self._told / 1e3, "startedAt": now_s, "counts": counts, "waiting": list(waiting)}
        status = {**(server.get("status") or {}), "loraDemand": {"ingress-1": report}}
        self.store.update_status({**server, "status": status})
        await self.rest()

    def engines(self) -> dict[str, Json]:
        return {engine["metadata"]["name"]: engine for engine in self.store.list("Engine").items}

    def loaded(self) -> dict[str, set[str]]:
        """By engine: the adapters that clients may be sent to it for."""
        return {name: set(engine["status"].get("models", ())) - {"m"} for name, engine in self.engines().items()}

    def supervisor(self, name: str) -> FakeSupervisor:
        found = self.cluster.subject(actor_name(self.engines()[name]))
        assert isinstance(found, FakeSupervisor)
        return found

    def status(self) -> Json:
        return dict(self.store.get(SERVER).get("status") or {})

    def condition(self) -> tuple[str, str, str]:
        (found,) = [one for one in self.status()["conditions"] if one["type"] == "AdaptersReady"]
        return found["status"], found["reason"], found["message"]


@pytest.fixture(name="serving")
def serving_fixture() -> Callable[..., Json]:
    return serving


@pytest.fixture(name="model_server")
def model_server_fixture() -> Callable[..., Json]:
    return model_server


@pytest.fixture
async def make_bench() -> AsyncIterator[Callable[..., Awaitable[Bench]]]:
    benches: list[Bench] = []

    async def build(**refused: str) -> Bench:
        benches.append(Bench())
        benches[-1].refused.update(refused)
        await benches[-1].start()
        return benches[-1]

    yield build
    for bench in benches:
        await bench.stop()
        await bench.cluster.close()
