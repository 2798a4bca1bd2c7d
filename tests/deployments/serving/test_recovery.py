"""Failures: who is replaced, who is restarted in place, and how long a crash loop waits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hekla.deployments.serving.instructions import RestartEngine, RetireUnit
from hekla.deployments.serving.recovery import CRASH_FORGET_S, crash_delay_s
from hekla.deployments.serving.rehearsal import Rehearsal
from hekla.platform.api.meta import Json, condition_status

Rehearse = Callable[..., Rehearsal]
Make = Callable[..., Json]


def changed(rehearsal: Rehearsal, before: dict[str, str]) -> set[str]:
    return {name for name, uid in rehearsal.uids.items() if before.get(name) != uid}


def test_role_recreate_replaces_the_role_replica_and_nothing_else(rehearse: Rehearse, role: Make) -> None:
    rehearsal = rehearse(2, [role("prefill", 2, workers=1), role("decode")])
    before = rehearsal.uids
    rehearsal.fail("llm-0-prefill-1-1")
    rehearsal.settle()
    assert changed(rehearsal, before) == {"llm-0-prefill-1-0", "llm-0-prefill-1-1"}
    assert rehearsal.available() == 2


def test_group_recreate_replaces_the_whole_group(rehearse: Rehearse, role: Make) -> None:
    rehearsal = rehearse(2, [role("prefill"), role("decode")], recoveryPolicy="ServingGroupRecreate")
    before = rehearsal.uids
    rehearsal.fail("llm-1-decode-0-0")
    rehearsal.settle()
    assert changed(rehearsal, before) == {"llm-1-prefill-0-0", "llm-1-decode-0-0"}


def test_policy_none_restarts_the_engine_alone_in_its_place(rehearse: Rehearse, role: Make) -> None:
    rehearsal = rehearse(1, [role("prefill", 1, workers=1)], recoveryPolicy="None")
    before = rehearsal.uids
    rehearsal.fail("llm-0-prefill-0-1")
    assert [type(step) for step in rehearsal.run()] == [RestartEngine]
    rehearsal.settle()
    assert rehearsal.uids == before
    assert rehearsal.engines["llm-0-prefill-0-1"]["status"]["restarts"] == 1
    assert rehearsal.engines["llm-0-prefill-0-0"]["status"]["restarts"] == 0


def test_policy_none_replaces_a_role_replica_whose_node_is_gone(rehearse: Rehearse) -> None:
    rehearsal = rehearse(1, recoveryPolicy="None")
    before = rehearsal.uids
    rehearsal.engines["llm-0-server-0-0"]["spec"]["node"] = "a node that left"
    rehearsal.fail("llm-0-server-0-0")
    rehearsal.settle()
    assert changed(rehearsal, before) == {"llm-0-server-0-0"}


@pytest.mark.parametrize(
    ("policy", "replaced"),
    [
        ("RoleRecreate", {"llm-0-prefill-0-0", "llm-0-prefill-0-1"}),
        ("None", {"llm-0-prefill-0-0", "llm-0-prefill-0-1"}),
        ("ServingGroupRecreate", {"llm-0-prefill-0-0", "llm-0-prefill-0-1", "llm-0-decode-0-0"}),
    ],
)
def test_an_engine_that_somebody_deletes_is_recovered_per_policy(
    rehearse: Rehearse, role: Make, policy: str, replaced: set[str]
) -> None:
    rehearsal = rehearse(1, [role("prefill", 1, workers=1), role("decode")], recoveryPolicy=policy)
    before = rehearsal.uids
    rehearsal.delete_from_outside("llm-0-prefill-0-1")
    rehearsal.settle()
    assert changed(rehearsal, before) == replaced


def grace(seconds: int) -> Json:
    return {"template": {"restartGracePeriodSeconds": seconds}}


def test_within_its_grace_a_failed_engine_is_restarted_in_place_and_kept(rehearse: Rehearse) -> None:
    rehearsal = rehearse(1, **grace(60))
    before = rehearsal.uids
    rehearsal.fail("llm-0-server-0-0")
    assert [type(step) for step in rehearsal.run()] == [RestartEngine]
    rehearsal.now += 59
    rehearsal.become_ready()
    rehearsal.now += 2
    rehearsal.settle()
    assert rehearsal.uids == before


def test_after_its_grace_an_engine_that_is_not_ready_is_replaced(rehearse: Rehearse) -> None:
    rehearsal = rehearse(1, **grace(60))
    before = rehearsal.uids
    rehearsal.fail("llm-0-server-0-0")
    rehearsal.run()
    rehearsal.now += 59
    assert rehearsal.run() == []
    assert rehearsal.plan().again_s == pytest.approx(1, abs=1)
    rehearsal.now += 1
    assert [type(step) for step in rehearsal.run()] == [RetireUnit]
    rehearsal.settle()
    assert changed(rehearsal, before) == {"llm-0-server-0-0"}


def test_a_replacement_is_never_killed_by_its_predecessors_timer(rehearse: Rehearse) -> None:
    rehearsal = rehearse(1, **grace(60))
    rehearsal.fail("llm-0-server-0-0")
    rehearsal.run()
    rehearsal.now += 30
    rehearsal.delete_from_outside("llm-0-server-0-0")
    rehearsal.run()
    rehearsal.finish_leaving()
    rehearsal.run()
    replacement = rehearsal.uids
    for _ in range(10):
        rehearsal.now += 10
        rehearsal.run()
    assert rehearsal.uids == replacement, "it is still starting, and no failure of its own is on record"


def test_a_crash_loop_waits_longer_each_time_and_says_so(rehearse: Rehearse) -> None:
    rehearsal = rehearse(1)
    waits = []
    for _ in range(9):
        rehearsal.fail("llm-0-server-0-0", "exit code 7")
        start = rehearsal.now
        while not [step for step in rehearsal.step() if isinstance(step, RetireUnit)]:
            again_s = rehearsal.plan().again_s
            assert again_s is not None
            rehearsal.now += again_s
        waits.append(rehearsal.now - start)
        rehearsal.finish_leaving()
        rehearsal.run()
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    rehearsal.fail("llm-0-server-0-0", "exit code 7")
    rehearsal.step()
    assert condition_status(rehearsal.serving, "CrashLooping") == "True"
    (condition,) = [c for c in rehearsal.serving["status"]["conditions"] if c["type"] == "CrashLooping"]
    assert "exit code 7" in condition["message"]


def test_an_engine_that_runs_long_enough_owes_nothing(rehearse: Rehearse) -> None:
    rehearsal = rehearse(1)
    for _ in range(3):
        rehearsal.fail("llm-0-server-0-0")
        rehearsal.now += 100
        rehearsal.settle()
    assert rehearsal.serving["status"]["crashes"]["0/server/0"]["failures"] == 3
    rehearsal.now += CRASH_FORGET_S
    rehearsal.settle()
    assert "crashes" not in rehearsal.serving["status"]
    assert condition_status(rehearsal.serving, "CrashLooping") == "False"


def test_the_delay_never_exceeds_a_minute() -> None:
    assert crash_delay_s(10_000) == 60


def test_a_restart_of_the_controller_changes_nothing(rehearse: Rehearse, role: Make) -> None:
    rehearsal = rehearse(2, [role("prefill", 2, workers=1), role("decode")])
    fresh = Rehearsal(rehearsal.serving, rehearsal.now)
    fresh.engines, fresh.revisions = rehearsal.engines, rehearsal.revisions
    assert fresh.run() == []


def test_a_restart_of_the_controller_in_the_middle_of_a_rollout_goes_on(
    rehearse: Rehearse, serving: Make, role: Make
) -> None:
    rehearsal = rehearse(4)
    rehearsal.update(serving(4, [role(image="v2")]))
    rehearsal.run()
    rehearsal.finish_leaving()
    fresh = Rehearsal(rehearsal.serving, rehearsal.now)
    fresh.engines, fresh.revisions = rehearsal.engines, rehearsal.revisions
    fresh._made = 1000
    fresh.settle()
    assert sorted(fresh.engines) == [f"llm-{g}-server-0-0" for g in range(4)]
    assert fresh.serving["status"]["updatedReplicas"] == 4
