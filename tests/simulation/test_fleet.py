"""Whole runs: the production dispatcher on simulated engines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hekla.deployments.simengine.scheduler import Limits
from hekla.deployments.simengine.steps import Linear
from hekla.routing.admission.settings import AdmissionSettings, Objective
from hekla.simulation.baselines.catalog import POLICIES, cost_policy, policy_named
from hekla.simulation.engine.spec import EngineSpec, engine_spec
from hekla.simulation.fleet import Fleet, FleetSettings, Run
from hekla.simulation.gate import Admission
from hekla.simulation.policy import Policy
from hekla.simulation.records import Objective as Goal
from hekla.simulation.records import jain
from hekla.simulation.workload import mixed, sessions, shared_prefix
from hekla.simulation.workload.interface import Workload

SHAPE = shared_prefix.PrefixGroups("test", 12, 10, 1024, 128, 32)
ENGINE = replace(engine_spec("Qwen2.5-7B", "L40S"), blocks=200)
"""Memory for a few of the prefixes only."""


def run(
    policy: Policy, workload: Workload, *, seed: int = 1, engines: int = 3, engine: EngineSpec = ENGINE, **more: object
) -> Run:
    settings = FleetSettings([engine] * engines, **more)  # type: ignore[arg-type]
    fleet = Fleet(settings, policy, workload, seed=seed)
    found = fleet.run()
    for each in fleet.engines.values():
        if not each.is_stopped:
            each.check()
            assert each.cache.used == 0, "a request has left blocks behind"
    for router in fleet.routers:
        router.loads.check()
        assert not router.loads.own(), "a trip was not ended"
    return found


def open_loop(seed: int = 1, rate: float = 20.0) -> Workload:
    return shared_prefix.open_loop(SHAPE, seed, rate=rate, seconds=6)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_serves_every_request_once_and_leaves_nothing_behind(name: str) -> None:
    workload = open_loop()
    found = run(policy_named(name), workload)
    assert sorted(row.id for row in found.records) == [item.id for item in workload.requests]
    assert all(row.finished_s > row.first_s > 0 or row.output_tokens == 1 for row in found.records)
    assert found.summary.served == len(workload.requests) and found.summary.errors == 0


def test_the_same_seed_gives_the_same_run_and_another_another() -> None:
    def times(seed: int) -> list[float]:
        settings = FleetSettings([ENGINE] * 3, replicas=2, staleness_s=0.05)
        return [row.finished_s for row in Fleet(settings, policy_named("hekla"), open_loop(), seed=seed).run().records]

    assert times(1) == times(1)
    assert times(1) != times(2)


def test_what_the_scheduler_predicts_of_caches_is_what_engines_find() -> None:
    found = run(policy_named("hekla"), open_loop(rate=5))
    assert found.summary.precision > 0.97
    assert found.summary.hit > 0.4


def test_without_eviction_the_hit_share_is_the_workloads_bound() -> None:
    workload = shared_prefix.closed_loop(SHAPE, 1, concurrency=1)
    found = run(policy_named("infinite-cache"), workload, engines=1)
    total = sum(row.prompt_tokens for row in found.records)
    assert found.summary.hit == pytest.approx((120 - 12) * 1024 / total, rel=1e-6)


def test_a_closed_loop_keeps_its_concurrency() -> None:
    found = run(policy_named("hekla"), shared_prefix.closed_loop(SHAPE, 1, concurrency=10))
    assert len(found.records) == 120
    edges = sorted([(row.arrived_s, 1) for row in found.records] + [(row.finished_s, -1) for row in found.records])
    at_once = worst = 0
    for _, step in edges:
        at_once += step
        worst = max(worst, at_once)
    assert worst == 10


def test_knowing_caches_beats_not_knowing_them_where_prompts_share_much() -> None:
    for seed in (1, 2):
        workload = shared_prefix.open_loop(SHAPE, seed, rate=40, seconds=10)
        ours = run(policy_named("hekla"), workload, seed=seed).summary
        chance = run(policy_named("random"), workload, seed=seed).summary
        assert ours.hit > chance.hit + 0.1
        assert ours.ttft_mean_s < chance.ttft_mean_s


def test_slow_engines_of_a_mixed_fleet_get_less_also_when_nothing_says_which_they_are() -> None:
    fleet = [engine_spec("Llama-3-8B", name) for name in ("H100", "H100", "L4", "L4")]
    workload = mixed.zipf_groups("W7", 1, rate=12, seconds=40, groups=16)
    for knows_types in (True, False):
        policy = policy_named("hekla").renamed("hekla", knows_types=knows_types)
        rows = Fleet(FleetSettings(fleet), policy, workload, seed=1).run().records[100:]
        slow = sum(row.engine in ("e2", "e3") for row in rows) / len(rows)
        assert slow < 0.35, f"with labels: {knows_types}"


def test_an_engine_that_dies_costs_no_client_an_error_and_no_token_twice() -> None:
    workload = open_loop(rate=30)
    found = run(policy_named("hekla"), workload, kills=((2.0, 0), (3.0, 1)), staleness_s=0.05, replicas=2)
    assert found.summary.errors == 0 and found.summary.served == len(workload.requests)
    assert any(row.tries > 1 for row in found.records)


def test_when_no_engine_is_left_requests_are_refused_and_not_lost() -> None:
    found = run(policy_named("hekla"), open_loop(), engines=1, kills=((1.0, 0),))
    assert found.summary.errors > 0
    assert all(row.refused or row.finished_s > 0 for row in found.records)


def test_replicas_that_hear_late_of_each_other_still_count_all_work() -> None:
    for staleness_s in (0.0, 0.05, 1.0):
        found = run(policy_named("hekla"), open_loop(), replicas=4, staleness_s=staleness_s)
        assert found.summary.errors == 0


def test_prefill_engines_compute_prompts_and_decode_engines_answer() -> None:
    workload = mixed.long_and_short(1, rate=6, seconds=8)
    engine = engine_spec("Llama-3-8B", "H100")
    found = run(policy_named("hekla"), workload, engines=4, engine=engine, prefill=2)
    assert {row.engine for row in found.records} == {"e2", "e3"}
    assert found.summary.served == len(workload.requests)


def test_sessions_find_their_own_history() -> None:
    shape = replace(sessions.CHAT, own_tokens=(400, 100, 100, 600), pause_s=1.0)
    workload = sessions.conversations(shape, 1, users=6, seconds=60)
    engine = engine_spec("Qwen2.5-7B", "L40S")
    sticky = run(policy_named("hekla"), workload, engine=engine).summary
    scattered = run(
        policy_named("random"), sessions.conversations(shape, 1, users=6, seconds=60), engine=engine
    ).summary
    assert sticky.hit > 0.8 > scattered.hit


OVERLOAD = EngineSpec("slow", Linear(20.0, 0.2, 0.5), 800, 64, Limits(64, 2048, 40_000))


def overloaded(admission: Admission | None) -> Run:
    workload = shared_prefix.open_loop(SHAPE, 1, rate=60, seconds=20)
    settings = FleetSettings([OVERLOAD] * 2, admission=admission)
    return Fleet(settings, policy_named("hekla"), workload, seed=1).run(Goal(1.0, 0.06))


def test_under_overload_predictive_admission_serves_more_within_the_objective() -> None:
    objectives = (Objective(ttft_s=1.0, step_s=0.06),)
    admitted = overloaded(Admission(AdmissionSettings(objectives=objectives, timeout_s=1.0)))
    everything = overloaded(None)
    assert admitted.summary.refused > 0
    assert admitted.summary.good_per_s > 1.5 * everything.summary.good_per_s


def test_a_flooding_tenant_waits_itself_and_those_who_ask_for_little_are_served_in_full() -> None:
    """W8 in small: twice what the fleet can do is offered, nearly all of it by one tenant."""
    quiet = {f"t{i}": 0.5 for i in range(4)}
    settings = AdmissionSettings(
        objectives=(Objective(ttft_s=2.0),), timeout_s=30.0, queue_max=10_000, tenant_queue_max=10_000
    )
    workload = mixed.flood(1, rates=quiet | {"flood": 30.0}, seconds=20, groups=40, output_tokens=150, warm_s=5)
    fleet = FleetSettings([engine_spec("Qwen3-32B", "H100", 2)] * 2, admission=Admission(settings))
    found = Fleet(fleet, policy_named("hekla"), workload, seed=1).run()
    waits = found.summary.tenants
    assert max(waits[name] for name in quiet) < 0.6 * waits["flood"]
    served = [sum(row.finished_s > 0 for row in found.records if row.tenant == name) for name in quiet]
    offered = [sum(row.tenant == name for row in found.records) for name in quiet]
    assert served == offered
    assert jain([a / b for a, b in zip(served, offered, strict=True)]) == pytest.approx(1.0)


def test_arguments_of_the_cost_scorer_reach_it() -> None:
    busy = shared_prefix.open_loop(SHAPE, 1, rate=40, seconds=5)
    one, other = (run(cost_policy("cost", d=d), busy).summary.hit for d in (0.0, 30.0))
    assert one != other


def test_an_unknown_policy_is_told_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'best' is unknown; known: hekla, random"):
        policy_named("best")


def test_engines_with_another_block_size_than_the_workload_are_refused() -> None:
    with pytest.raises(ValueError, match="blocks of 16 tokens, the workload of 64"):
        Fleet(
            FleetSettings([engine_spec("Llama-3-8B", "L4", block_tokens=16)]),
            policy_named("hekla"),
            open_loop(),
            seed=1,
        )
