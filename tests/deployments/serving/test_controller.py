"""The ModelServing controller against store, cluster and supervisors: everything real but the processes and the clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml

from hekla.deployments.engines.lifecycle import Exited
from hekla.deployments.fake_supervisor import Script
from hekla.deployments.naming import actor_name
from hekla.platform.api.admission import admit
from hekla.platform.api.meta import Json, Ref, condition_status
from hekla.platform.cluster.fake import FakeCluster
from hekla.platform.cluster.interface import Bundle, Node

Make = Callable[..., Json]
MakeNode = Callable[..., Node]
MakeBench = Callable[..., Awaitable[Any]]

BOOSTER = """
apiVersion: workload.serving.volcano.sh/v1alpha1
kind: ModelBooster
metadata: {name: quick}
spec:
  name: chat
  backend:
    name: sim
    type: Simulated
    modelURI: hf://org/model
    replicas: 1
    workers: [{type: server, replicas: 1, pods: 1, resources: {requests: {cpu: "1"}}}]
"""


async def test_a_booster_becomes_a_ready_engine(make_bench: MakeBench, node: MakeNode) -> None:
    bench = await make_bench(node("n1"))
    await bench.apply(admit(yaml.safe_load(BOOSTER)))
    assert bench.phases() == {"quick-sim-0-leader-0-0": "Ready"}
    booster = bench.store.get(Ref("ModelBooster", "default", "quick"))
    assert condition_status(booster, "Active") == "True"
    engine = bench.engines()["quick-sim-0-leader-0-0"]
    assert engine["spec"]["node"] == "n1"
    assert engine["status"]["models"] == ["chat"]
    server = bench.store.get(Ref("ModelServer", "default", "quick-sim"))
    assert server["spec"]["workloadSelector"]["matchLabels"].items() <= engine["metadata"]["labels"].items()


async def test_deleting_a_booster_leaves_nothing_behind(make_bench: MakeBench, node: MakeNode) -> None:
    bench = await make_bench(node("n1"))
    await bench.apply(admit(yaml.safe_load(BOOSTER)))
    bench.store.delete(Ref("ModelBooster", "default", "quick"))
    await bench.rest()
    kinds = ("ModelBooster", "ModelServing", "ModelServer", "ModelRoute", "Engine", "ControllerRevision")
    assert [obj["metadata"]["name"] for kind in kinds for obj in bench.store.list(kind).items] == []
    assert (await bench.cluster.actors(), await bench.cluster.placement_groups()) == (set(), set())


async def test_an_engine_whose_actor_is_killed_is_replaced_with_its_role_replica(
    make_bench: MakeBench, node: MakeNode, serving: Make, role: Make
) -> None:
    bench = await make_bench(node("n1", 8))
    await bench.apply(serving(1, [role("prefill", 2, workers=1), role("decode")]))
    before = bench.uids()
    bench.cluster.kill_actor(actor_name(bench.engines()["llm-0-prefill-1-1"]))
    await bench.rest()
    changed = {name for name, uid in bench.uids().items() if before[name] != uid}
    assert changed == {"llm-0-prefill-1-0", "llm-0-prefill-1-1"}
    assert set(bench.phases().values()) == {"Ready"}
    reasons = {reason for reason, _ in bench.events()}
    assert {"RoleCreating", "RoleRunning", "RoleDeleting", "EngineFailed"} <= reasons
    assert any("its process was killed" in text for reason, text in bench.events() if reason == "EngineFailed")


async def test_an_engine_that_crashes_within_its_grace_restarts_in_its_bundle(
    make_bench: MakeBench, node: MakeNode, serving: Make
) -> None:
    bench = await make_bench(node("n1"))
    await bench.apply(serving(1, template={"restartGracePeriodSeconds": 60}))
    before, groups = bench.engines(), await bench.cluster.placement_groups()
    bench.supervisor("llm-0-server-0-0").crash()
    await bench.rest()
    after = bench.engines()["llm-0-server-0-0"]
    assert after["metadata"]["uid"] == before["llm-0-server-0-0"]["metadata"]["uid"]
    assert (after["status"]["phase"], after["status"]["restarts"]) == ("Ready", 1)
    assert "failedAt" not in after["status"]
    assert await bench.cluster.placement_groups() == groups
    assert await bench.cluster.actors() == {actor_name(after)}


async def test_without_room_it_says_what_is_short_and_starts_when_a_node_joins(
    make_bench: MakeBench, node: MakeNode, serving: Make, role: Make
) -> None:
    bench = await make_bench(node("n1", 1.0))
    await bench.apply(serving(1, [role("prefill"), role("decode")]))
    schedulable = bench.condition("Schedulable")
    assert (schedulable["status"], schedulable["reason"]) == ("False", "Unschedulable")
    assert "1 CPU" in schedulable["message"]
    assert "n1" in schedulable["message"]
    assert set(bench.phases().values()) == {"Pending"}
    assert await bench.cluster.placement_groups() == set(), "a gang holds nothing while a part of it has no room"
    assert len([reason for reason, _ in bench.events() if reason == "FailedScheduling"]) == 1
    bench.cluster.add_node(node("n2", 1.0))
    await bench.rest()
    assert set(bench.phases().values()) == {"Ready"}
    assert bench.condition("Schedulable")["status"] == "True"
    assert sorted(engine["spec"]["node"] for engine in bench.engines().values()) == ["n1", "n2"]


class Hopeful(FakeCluster):
    """Says that everything is free: what the planner sees is always out of date."""

    async def nodes(self) -> list[Node]:
        return [replace(node, available=node.total) for node in await super().nodes()]


async def test_a_plan_the_cluster_can_not_keep_leaves_no_group_behind_and_is_tried_again(
    make_bench: MakeBench, node: MakeNode, serving: Make, role: Make
) -> None:
    bench = await make_bench(node("n1", 2.0), kind=Hopeful)
    await bench.cluster.create_placement_group("strange", [Bundle({"CPU": 1.0}, "n1")], 1)
    await bench.apply(serving(1, [role("prefill"), role("decode")]))
    await bench.rest(11)
    assert await bench.cluster.placement_groups() == {"strange"}, "one deadline for all, then none of them"
    assert bench.condition("Schedulable")["status"] == "False"
    assert set(bench.phases().values()) == {"Pending"}
    await bench.cluster.remove_placement_group("strange")
    await bench.rest(10)
    assert set(bench.phases().values()) == {"Ready"}
    assert len(await bench.cluster.placement_groups()) == 2


async def test_a_restarted_controller_keeps_the_engines_that_run(
    make_bench: MakeBench, node: MakeNode, serving: Make
) -> None:
    bench = await make_bench(node("n1"))
    await bench.apply(serving(3))
    before, actors = bench.engines(), await bench.cluster.actors()
    subjects = {name: bench.supervisor(name) for name in before}
    await bench.stop()
    await bench.start()
    await bench.rest()
    assert await bench.cluster.actors() == actors
    assert {name: bench.supervisor(name) for name in bench.engines()} == subjects
    assert {name: obj["metadata"]["uid"] for name, obj in before.items()} == bench.uids()
    subjects["llm-1-server-0-0"].crash()
    await bench.rest()
    assert set(bench.phases().values()) == {"Ready"}, "adopted engines are watched"
    assert bench.uids() != {name: obj["metadata"]["uid"] for name, obj in before.items()}


async def test_an_engine_that_died_while_the_controller_was_away_is_recovered(
    make_bench: MakeBench, node: MakeNode, serving: Make
) -> None:
    bench = await make_bench(node("n1"))
    await bench.apply(serving(2))
    before = bench.uids()
    await bench.stop()
    bench.cluster.kill_actor(actor_name(bench.engines()["llm-0-server-0-0"]))
    await bench.start()
    await bench.rest()
    assert set(bench.phases().values()) == {"Ready"}
    assert {name for name, uid in bench.uids().items() if before[name] != uid} == {"llm-0-server-0-0"}


async def test_what_runs_without_an_engine_object_is_removed_at_start_and_strangers_are_not(
    make_bench: MakeBench, node: MakeNode, serving: Make
) -> None:
    bench = await make_bench(node("n1"))
    await bench.apply(serving(1))
    await bench.stop()
    await bench.cluster.create_placement_group("engine.default.lost-0-x-0.aaaa", [Bundle({"CPU": 1.0}, "n1")], 1)
    await bench.cluster.create_placement_group("sandbox.pool", [Bundle({"CPU": 1.0}, "n1")], 1)
    await bench.start()
    await bench.rest()
    groups = await bench.cluster.placement_groups()
    assert "sandbox.pool" in groups
    assert "engine.default.lost-0-x-0.aaaa" not in groups
    assert bench.phases() == {"llm-0-server-0-0": "Ready"}


async def test_a_lost_node_moves_its_engines_elsewhere(make_bench: MakeBench, node: MakeNode, serving: Make) -> None:
    bench = await make_bench(node("n1", 2), node("n2", 2))
    await bench.apply(serving(2, recoveryPolicy="None"))
    lost = bench.engines()["llm-0-server-0-0"]["spec"]["node"]
    bench.cluster.remove_node(lost)
    await bench.rest()
    assert set(bench.phases().values()) == {"Ready"}
    assert {engine["spec"]["node"] for engine in bench.engines().values()} == {"n1", "n2"} - {lost}


async def test_an_engine_drains_before_it_goes(make_bench: MakeBench, node: MakeNode, serving: Make) -> None:
    bench = await make_bench(node("n1"))
    await bench.apply(serving(2))
    bench.supervisor("llm-1-server-0-0").script = Script(work=1)
    bench.store.update({**bench.get(), "spec": serving(1)["spec"]})
    await bench.rest(3)
    assert bench.phases() == {"llm-0-server-0-0": "Ready", "llm-1-server-0-0": "Draining"}
    await bench.rest(20)
    assert bench.phases()["llm-1-server-0-0"] == "Draining"
    await bench.rest(10)
    assert bench.phases() == {"llm-0-server-0-0": "Ready"}
    assert len(await bench.cluster.placement_groups()) == 1


async def test_a_controller_that_restarts_while_engines_drain_goes_on_with_it(
    make_bench: MakeBench, node: MakeNode, serving: Make
) -> None:
    bench = await make_bench(node("n1"))
    await bench.apply(serving(1))
    bench.store.delete(Ref("ModelServing", "default", "llm"))
    await bench.clock.advance(0.1)
    await bench.stop()
    assert bench.engines()["llm-0-server-0-0"]["metadata"]["deletionTimestamp"]
    await bench.start()
    await bench.rest()
    assert bench.engines() == {}
    assert bench.store.list("ModelServing").items == []


async def test_workers_learn_their_place_and_where_the_entry_is(
    make_bench: MakeBench, node: MakeNode, serving: Make, role: Make
) -> None:
    bench = await make_bench(node("n1", 2.0), node("n2", 1.0))
    await bench.apply(serving(1, [role("leader", 1, workers=2)]))
    engines = bench.engines()
    entry_node = engines["llm-0-leader-0-0"]["spec"]["node"]
    for index in range(3):
        launch = bench.supervisor(f"llm-0-leader-0-{index}").launch
        assert launch.env["ENTRY_ADDRESS"] == f"10.0.0.{entry_node[-1]}"
        assert (launch.env["GROUP_SIZE"], launch.env["WORKER_INDEX"]) == ("3", str(index))
        assert launch.entry_actor == actor_name(engines["llm-0-leader-0-0"])
    assert len({engine["spec"]["placementGroup"] for engine in engines.values()}) == 1


async def test_a_template_change_rolls_one_group_at_a_time(
    make_bench: MakeBench, node: MakeNode, serving: Make, role: Make
) -> None:
    bench = await make_bench(node("n1"))
    await bench.apply(serving(3))
    before = set(bench.uids().values())
    bench.store.update({**bench.get(), "spec": serving(3, [role(image="v2")])["spec"]})
    least = 3
    for _ in range(60):
        await bench.clock.advance(0.5)
        least = min(least, list(bench.phases().values()).count("Ready"))
    assert least == 2
    assert not before & set(bench.uids().values())
    assert bench.get()["status"]["updatedReplicas"] == bench.get()["status"]["availableReplicas"] == 3


async def test_a_crash_loop_is_slowed_down_and_named(make_bench: MakeBench, node: MakeNode, serving: Make) -> None:
    bench = await make_bench(node("n1"))
    await bench.apply(serving(1))
    for _ in range(4):
        bench.supervisor("llm-0-server-0-0").play(Exited("exit code 7"))
        await bench.rest(1)
        if bench.phases()["llm-0-server-0-0"] != "Ready":
            break
    assert bench.phases()["llm-0-server-0-0"] == "Failed"
    assert bench.condition("CrashLooping")["status"] == "True"
    assert "exit code 7" in bench.condition("CrashLooping")["message"]
    await bench.rest(120)
    assert bench.phases() == {"llm-0-server-0-0": "Ready"}


async def test_fields_without_a_meaning_on_ray_are_named(
    make_bench: MakeBench, node: MakeNode, serving: Make, role: Make
) -> None:
    bench = await make_bench(node("n1"))
    odd = role()
    odd["entryTemplate"]["spec"]["tolerations"] = [{"key": "gpu", "operator": "Exists"}]
    await bench.apply(serving(1, [odd]))
    assert bench.condition("IgnoredOnRay")["status"] == "True"
    assert "spec.template.roles[0].entryTemplate.spec.tolerations" in bench.condition("IgnoredOnRay")["message"]


@pytest.mark.parametrize("policy", ["RoleRecreate", "ServingGroupRecreate", "None"])
async def test_a_deleted_engine_object_comes_back_under_its_name(
    make_bench: MakeBench, node: MakeNode, serving: Make, policy: str
) -> None:
    bench = await make_bench(node("n1"))
    await bench.apply(serving(1, recoveryPolicy=policy))
    before = bench.uids()
    bench.store.delete(Ref("Engine", "default", "llm-0-server-0-0"))
    await bench.rest()
    assert bench.phases() == {"llm-0-server-0-0": "Ready"}
    assert bench.uids() != before
    assert len(await bench.cluster.actors()) == 1
