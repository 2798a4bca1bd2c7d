"""The ModelBooster controller: makes, heals, replaces and removes what it generated, and says how things stand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from hekla.deployments.booster.controller import ModelBoosterController
from hekla.platform.api.admission import admit
from hekla.platform.api.meta import Json, Ref, condition_status
from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.errors import NotFound
from hekla.platform.base.ids import SeededIds
from hekla.platform.control.runtime import ControllerRuntime
from hekla.platform.store.memory import MemoryStore

Make = Callable[..., Json]
SERVING = Ref("ModelServing", "default", "demo-main")
SERVER = Ref("ModelServer", "default", "demo-main")
ROUTE = Ref("ModelRoute", "default", "demo")
BOOSTER = Ref("ModelBooster", "default", "demo")


@dataclass
class Bench:
    store: MemoryStore
    clock: VirtualClock

    async def apply(self, obj: Json) -> None:
        try:
            found = self.store.get(BOOSTER)
        except NotFound:
            self.store.create(obj)
        else:
            self.store.update({**found, "spec": obj["spec"]})
        await self.clock.advance(1)

    async def edit(self, ref: Ref, **spec: object) -> None:
        found = self.store.get(ref)
        self.store.update({**found, "spec": {**found["spec"], **spec}})
        await self.clock.advance(1)

    async def say(self, **conditions: tuple[str, str]) -> None:
        """What the ModelServing controller would write."""
        found = self.store.get(SERVING)
        written = [{"type": kind, "status": status, "message": text} for kind, (status, text) in conditions.items()]
        found["status"] = {"observedGeneration": found["metadata"]["generation"], "conditions": written}
        self.store.update_status(found)
        await self.clock.advance(1)

    def condition(self, kind: str) -> Json:
        (found,) = [c for c in self.store.get(BOOSTER)["status"]["conditions"] if c["type"] == kind]
        return dict(found)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    clock, ids = VirtualClock(), SeededIds(3)
    store = MemoryStore(clock, ids)
    runtime = ControllerRuntime(store, [ModelBoosterController(store, clock)], clock, ids)
    await runtime.start()
    yield Bench(store, clock)
    await runtime.stop()


def exists(store: MemoryStore, ref: Ref) -> bool:
    return any(found["metadata"]["name"] == ref.name for found in store.list(ref.kind).items)


@pytest.mark.parametrize("child", [SERVING, SERVER, ROUTE])
async def test_a_deleted_child_is_made_again(bench: Bench, booster: Make, child: Ref) -> None:
    await bench.apply(booster())
    before = bench.store.get(child)["metadata"]["uid"]
    bench.store.delete(child)
    await bench.clock.advance(1)
    assert bench.store.get(child)["metadata"]["uid"] != before


async def test_a_child_edited_away_is_put_back(bench: Bench, booster: Make) -> None:
    await bench.apply(booster())
    await bench.edit(SERVER, model="something else")
    assert bench.store.get(SERVER)["spec"]["model"] == "chat"


async def test_scaling_the_generated_serving_is_respected_until_the_backend_changes(
    bench: Bench, booster: Make, worker: Make
) -> None:
    await bench.apply(booster())
    await bench.edit(SERVING, replicas=5)
    assert bench.store.get(SERVING)["spec"]["replicas"] == 5
    await bench.apply(booster(workers=[worker(config={"max-model-len": 1})]))
    assert bench.store.get(SERVING)["spec"]["replicas"] == 1


async def test_a_changed_backend_updates_the_serving_and_its_revision(
    bench: Bench, booster: Make, worker: Make
) -> None:
    await bench.apply(booster())
    label = "workload.serving.volcano.sh/revision"
    before = bench.store.get(SERVING)
    await bench.apply(booster(workers=[worker(replicas=2)]))
    after = bench.store.get(SERVING)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["labels"][label] != before["metadata"]["labels"][label]
    assert after["spec"]["template"]["roles"][0]["replicas"] == 2


async def test_renaming_the_backend_removes_the_old_children(bench: Bench, booster: Make) -> None:
    await bench.apply(booster())
    await bench.apply(booster(name="other"))
    assert not exists(bench.store, SERVING)
    assert not exists(bench.store, SERVER)
    assert exists(bench.store, Ref("ModelServing", "default", "demo-other"))
    (target,) = bench.store.get(ROUTE)["spec"]["rules"][0]["targetModels"]
    assert target["modelServerName"] == "demo-other"


async def test_a_new_model_name_makes_the_route_anew(bench: Bench, booster: Make) -> None:
    await bench.apply(booster())
    before = bench.store.get(ROUTE)["metadata"]["uid"]
    await bench.apply(booster(model="better"))
    after = bench.store.get(ROUTE)
    assert (after["spec"]["modelName"], after["metadata"]["uid"] != before) == ("better", True)


async def test_deleting_the_booster_takes_its_children_along(bench: Bench, booster: Make) -> None:
    await bench.apply(booster())
    bench.store.delete(BOOSTER)
    await bench.clock.advance(1)
    assert not any(exists(bench.store, ref) for ref in (SERVING, SERVER, ROUTE))


async def test_a_stranger_of_the_same_name_is_left_alone_and_reported_until_it_goes(
    bench: Bench, booster: Make
) -> None:
    strange = admit(
        {
            "apiVersion": "networking.serving.volcano.sh/v1alpha1",
            "kind": "ModelRoute",
            "metadata": {"name": "demo"},
            "spec": {"modelName": "mine", "rules": [{"targetModels": [{"modelServerName": "x"}]}]},
        }
    )
    bench.store.create(strange)
    await bench.apply(booster())
    assert bench.store.get(ROUTE)["spec"]["modelName"] == "mine"
    assert bench.condition("Failed")["status"] == "True"
    assert "ModelRoute default/demo exists and does not belong" in bench.condition("Failed")["message"]
    bench.store.delete(ROUTE)
    await bench.clock.advance(10)
    assert bench.condition("Failed")["status"] == "False", "it clears itself"


async def test_it_is_active_when_its_serving_is_available_at_the_current_generation(
    bench: Bench, booster: Make
) -> None:
    await bench.apply(booster())
    assert bench.condition("Initialized") | {"lastTransitionTime": ""} == {
        "type": "Initialized", "status": "True", "reason": "ModelCreating", "lastTransitionTime": "",
        "message": bench.condition("Initialized")["message"], "observedGeneration": 1,
    }  # fmt: skip
    assert (bench.condition("Active")["status"], bench.condition("Active")["reason"]) == ("False", "ModelProcessing")
    await bench.say(Available=("True", "1 of 1"))
    assert (bench.condition("Active")["status"], bench.condition("Active")["reason"]) == ("True", "ModelAvailable")
    found = bench.store.get(SERVING)
    bench.store.update({**found, "spec": {**found["spec"], "replicas": 2}})
    await bench.clock.advance(1)
    assert condition_status(bench.store.get(BOOSTER), "Active") == "False", "the serving has not seen its new spec yet"


async def test_a_shortage_is_what_it_says_while_it_waits(bench: Bench, booster: Make) -> None:
    await bench.apply(booster())
    await bench.say(Available=("False", "0 of 1"), Schedulable=("False", "needs 2 GPU"))
    assert bench.condition("Active")["message"] == "needs 2 GPU"


async def test_a_crash_loop_fails_it_and_health_clears_the_failure(bench: Bench, booster: Make) -> None:
    await bench.apply(booster())
    await bench.say(Available=("False", "0 of 1"), CrashLooping=("True", "exit code 7"))
    assert (bench.condition("Failed")["status"], bench.condition("Failed")["reason"]) == ("True", "ModelAbnormal")
    await bench.say(Available=("True", "1 of 1"), CrashLooping=("False", ""))
    assert bench.condition("Failed")["status"] == "False"
