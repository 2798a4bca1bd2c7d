"""Rolling updates: budgets, partitions, revisions, and mending a bad one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from hekla.deployments.revision import revision_of
from hekla.deployments.serving.reading import read_serving
from hekla.deployments.serving.rehearsal import Rehearsal
from hekla.platform.api.meta import Json, condition_status

Rehearse = Callable[..., Rehearsal]
Make = Callable[..., Json]


def rolling(**configuration: object) -> Json:
    return {"rolloutStrategy": {"rollingUpdateConfiguration": configuration}}


def images(rehearsal: Rehearsal) -> dict[str, str]:
    """Which template each engine came from, by revision label."""
    update = rehearsal.serving["status"]["updateRevision"]
    labels = {name: engine["metadata"]["labels"] for name, engine in rehearsal.engines.items()}
    return {
        name: "new" if label["modelserving.volcano.sh/revision"] == update else "old" for name, label in labels.items()
    }


def test_a_rollout_replaces_every_group_and_never_exceeds_its_budget(
    rehearse: Rehearse, serving: Make, role: Make
) -> None:
    rehearsal = rehearse(4, **rolling(maxUnavailable=2))
    before = set(rehearsal.uids.values())
    rehearsal.update(serving(4, [role(image="v2")], **rolling(maxUnavailable=2)))
    least = 4
    for _ in range(20):
        rehearsal.run()
        least = min(least, rehearsal.available())
        rehearsal.finish_leaving()
        rehearsal.run()
        least = min(least, rehearsal.available())
        rehearsal.become_ready()
    assert least == 2
    assert not before & set(rehearsal.uids.values())
    status = rehearsal.serving["status"]
    assert status["currentRevision"] == status["updateRevision"]
    assert status["updatedReplicas"] == status["currentReplicas"] == status["availableReplicas"] == 4


def test_the_highest_ordinals_roll_first(rehearse: Rehearse, serving: Make, role: Make) -> None:
    rehearsal = rehearse(3)
    rehearsal.update(serving(3, [role(image="v2")]))
    rehearsal.run()
    leaving = [name for name, (_, _, is_leaving) in rehearsal.snapshot().items() if is_leaving]
    assert leaving == ["llm-2-server-0-0"]


def test_a_bad_revision_stops_at_the_budget_and_mending_it_completes(
    rehearse: Rehearse, serving: Make, role: Make
) -> None:
    rehearsal = rehearse(6, **rolling(maxUnavailable=2))
    rehearsal.update(serving(6, [role(image="bad")], **rolling(maxUnavailable=2)))
    for _ in range(10):
        rehearsal.run()
        rehearsal.finish_leaving()
        rehearsal.run()
        for name, (_, phase, _) in rehearsal.snapshot().items():
            if phase == "Starting":
                rehearsal.fail(name)
        rehearsal.now += 120
        assert rehearsal.available() == 4
    assert condition_status(rehearsal.serving, "UpdateInProgress") == "True"
    assert condition_status(rehearsal.serving, "CrashLooping") == "True"
    rehearsal.update(serving(6, [role(image="good")], **rolling(maxUnavailable=2)))
    rehearsal.settle()
    assert rehearsal.available() == 6
    assert set(images(rehearsal).values()) == {"new"}
    assert condition_status(rehearsal.serving, "Available") == "True"


def test_a_partition_keeps_the_lower_ordinals_old(rehearse: Rehearse, serving: Make, role: Make) -> None:
    rehearsal = rehearse(5)
    rehearsal.update(serving(5, [role(image="v2")], **rolling(partition=3)))
    rehearsal.settle()
    kept = ["old", "old", "old", "new", "new"]
    assert [images(rehearsal)[f"llm-{g}-server-0-0"] for g in range(5)] == kept
    status = rehearsal.serving["status"]
    assert (status["updatedReplicas"], status["currentReplicas"]) == (2, 3)
    assert condition_status(rehearsal.serving, "Available") == "True"

    rehearsal.delete_from_outside("llm-1-server-0-0")
    rehearsal.settle()
    assert images(rehearsal)["llm-1-server-0-0"] == "old"
    image = rehearsal.revisions[status["currentRevision"]]["spec"]["roles"][0]["entryTemplate"]["spec"]["containers"][0]
    assert image["image"] == "v1"

    rehearsal.update(serving(7, [role(image="v2")], **rolling(partition=3)))
    rehearsal.settle()
    assert [images(rehearsal)[f"llm-{g}-server-0-0"] for g in range(7)] == [*kept, "new", "new"]

    rehearsal.update(serving(7, [role(image="v2")], **rolling(partition=0)))
    rehearsal.settle()
    assert set(images(rehearsal).values()) == {"new"}
    assert list(rehearsal.revisions) == [rehearsal.serving["status"]["updateRevision"]]


@pytest.mark.parametrize(("partition", "replicas", "ordinal"), [("50%", 3, 2), ("1%", 10, 1), (2, 3, 2)])
def test_a_partition_in_percent_rounds_up(serving: Make, partition: int | str, replicas: int, ordinal: int) -> None:
    obj = serving(replicas, **rolling(partition=partition))
    obj["metadata"] |= {"uid": "u", "generation": 1}
    assert read_serving(obj).partition == ordinal


def test_a_rollback_is_applying_the_old_template_again(rehearse: Rehearse, serving: Make, role: Make) -> None:
    rehearsal = rehearse(3)
    first = rehearsal.serving["status"]["updateRevision"]
    rehearsal.update(serving(3, [role(image="v2")]))
    rehearsal.run()
    rehearsal.update(serving(3, [role(image="v1")]))
    rehearsal.settle()
    assert rehearsal.serving["status"]["currentRevision"] == first
    assert set(images(rehearsal).values()) == {"new"}


def by_role(**spec: object) -> Json:
    return {"rolloutStrategy": {"type": "RoleRollingUpdate"}, **spec}


def test_a_role_rollout_leaves_the_other_roles_alone(rehearse: Rehearse, serving: Make, role: Make) -> None:
    rehearsal = rehearse(2, [role("prefill"), role("decode")], **by_role())
    before = rehearsal.uids
    rehearsal.update(serving(2, [role("prefill", image="v2"), role("decode")], **by_role()))
    rehearsal.settle()
    changed = {name for name, uid in rehearsal.uids.items() if before[name] != uid}
    assert changed == {"llm-0-prefill-0-0", "llm-1-prefill-0-0"}
    assert set(images(rehearsal).values()) == {"new"}, "untouched roles take the new revision's label at the end"


def test_a_role_partition_keeps_lower_role_replicas_and_protects_them(
    rehearse: Rehearse, serving: Make, role: Make
) -> None:
    rehearsal = rehearse(1, [role("prefill", 4)], **by_role())
    before = rehearsal.uids
    rehearsal.update(serving(1, [role("prefill", 4, image="v2", partition=2)], **by_role()))
    rehearsal.settle()
    assert [before[f"llm-0-prefill-{r}-0"] == rehearsal.uids[f"llm-0-prefill-{r}-0"] for r in range(4)] == [
        True, True, False, False,
    ]  # fmt: skip
    for replica, cost in enumerate((-100, -100, 100, 100)):
        marks = rehearsal.engines[f"llm-0-prefill-{replica}-0"]["metadata"]["annotations"]
        marks["controller.kubernetes.io/pod-deletion-cost"] = str(cost)
    rehearsal.update(serving(1, [role("prefill", 2, image="v2", partition=2)], **by_role()))
    rehearsal.settle()
    assert sorted(rehearsal.engines) == ["llm-0-prefill-0-0", "llm-0-prefill-1-0"]


def test_a_role_that_left_the_spec_is_removed(rehearse: Rehearse, serving: Make, role: Make) -> None:
    rehearsal = rehearse(1, [role("prefill"), role("decode")], **by_role())
    decode = rehearsal.uids["llm-0-decode-0-0"]
    rehearsal.update(serving(1, [role("decode")], **by_role()))
    rehearsal.settle()
    assert rehearsal.uids == {"llm-0-decode-0-0": decode}


def test_a_role_rollout_keeps_within_the_roles_budget(rehearse: Rehearse, serving: Make, role: Make) -> None:
    rehearsal = rehearse(1, [role("decode", 4, maxUnavailable=1)], **by_role())
    rehearsal.update(serving(1, [role("decode", 4, image="v2", maxUnavailable=1)], **by_role()))
    for _ in range(8):
        rehearsal.run()
        running = sum(phase == "Ready" and not leaves for _, phase, leaves in rehearsal.snapshot().values())
        assert running >= 3
        rehearsal.finish_leaving()
        rehearsal.run()
        rehearsal.become_ready()
    rehearsal.settle()
    assert set(images(rehearsal).values()) == {"new"}


def test_the_revision_ignores_counts_and_the_order_of_roles(role: Make) -> None:
    one = [role("prefill", 1), role("decode", 1)]
    assert revision_of(one) == revision_of([role("decode", 5), role("prefill", 7, maxUnavailable=2)])
    assert revision_of(one) != revision_of([role("prefill", 1, workers=1), role("decode", 1)])


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_fails_a_rollout_never_takes_more_than_its_budget(data: st.DataObject, rehearse_any: Rehearse) -> None:
    """The invariant is about what hekla does: running groups it retires itself, beyond the budget, are its fault."""
    replicas = data.draw(st.integers(1, 6), label="replicas")
    budget = data.draw(st.integers(1, 3), label="maxUnavailable")
    policy = data.draw(st.sampled_from(["RoleRecreate", "ServingGroupRecreate", "None"]), label="recoveryPolicy")
    rehearsal = rehearse_any(replicas, budget, policy, "v1")
    for step in range(data.draw(st.integers(1, 12), label="steps")):
        action = data.draw(st.sampled_from(["roll", "fail", "delete", "leave", "ready", "wait"]), label="action")
        names = sorted(name for name, (_, _, leaves) in rehearsal.snapshot().items() if not leaves)
        if action == "roll":
            rehearsal.update(rehearse_any(replicas, budget, policy, f"v{step + 2}").serving)
        elif action in ("fail", "delete") and names:
            name = data.draw(st.sampled_from(names), label="engine")
            (rehearsal.fail if action == "fail" else rehearsal.delete_from_outside)(name)
        elif action == "leave":
            rehearsal.finish_leaving()
        elif action == "ready":
            rehearsal.become_ready()
        else:
            rehearsal.now += data.draw(st.sampled_from([1, 30, 400]), label="seconds")
        before = rehearsal.available()
        rehearsal.step()
        after = rehearsal.available()
        note(f"step {step}: {action}, available {before} -> {after}")
        assert after >= min(before, replicas - budget), "hekla itself took away more than it may"
    rehearsal.now += 1000
    rehearsal.settle()
    assert rehearsal.available() == replicas
    assert set(images(rehearsal).values()) == {"new"}
