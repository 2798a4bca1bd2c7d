"""How many groups and role replicas there are, and which go first."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hekla.deployments.serving.instructions import CreateUnits, PlaceUnits
from hekla.deployments.serving.rehearsal import Rehearsal
from hekla.deployments.serving.scaling import missing_ordinals
from hekla.platform.api.meta import Json

Rehearse = Callable[..., Rehearsal]
Make = Callable[..., Json]
COST = "controller.kubernetes.io/pod-deletion-cost"


def ordinals(rehearsal: Rehearsal) -> list[int]:
    return sorted({engine["spec"]["group"] for engine in rehearsal.engines.values()})


def test_names_follow_from_the_ordinals(rehearse: Rehearse, role: Make) -> None:
    rehearsal = rehearse(2, [role("prefill", 1, workers=1), role("decode")])
    assert sorted(rehearsal.engines) == [
        "llm-0-decode-0-0", "llm-0-prefill-0-0", "llm-0-prefill-0-1",
        "llm-1-decode-0-0", "llm-1-prefill-0-0", "llm-1-prefill-0-1",
    ]  # fmt: skip


def test_labels_say_where_an_engine_belongs(rehearse: Rehearse, role: Make) -> None:
    rehearsal = rehearse(1, [role("prefill", 1, workers=1)])
    labels = rehearsal.engines["llm-0-prefill-0-0"]["metadata"]["labels"]
    assert labels["modelserving.volcano.sh/name"] == "llm"
    assert labels["modelserving.volcano.sh/group-name"] == "llm-0"
    assert labels["modelserving.volcano.sh/role"] == "prefill"
    assert labels["modelserving.volcano.sh/role-id"] == "prefill-0"
    assert labels["modelserving.volcano.sh/entry"] == "true"
    assert labels["modelserving.volcano.sh/revision"] == rehearsal.serving["status"]["updateRevision"]
    assert "modelserving.volcano.sh/entry" not in rehearsal.engines["llm-0-prefill-0-1"]["metadata"]["labels"]


@pytest.mark.parametrize(
    ("existing", "blocked", "wanted", "made"),
    [
        ({10}, set(), 3, [0, 1]),
        ({0, 2, 4}, set(), 5, [1, 3]),
        (set(), set(), 2, [0, 1]),
        ({0, 1, 2}, set(), 2, []),
        ({1, 2}, {0}, 3, []),
        (set(), {0}, 2, [1]),
    ],
)
def test_gaps_are_filled_from_the_lowest_free_ordinal(
    existing: set[int], blocked: set[int], wanted: int, made: list[int]
) -> None:
    assert missing_ordinals(existing, blocked, wanted) == made


def test_three_groups_scale_to_one(rehearse: Rehearse, serving: Make) -> None:
    rehearsal = rehearse(3)
    kept = rehearsal.uids["llm-0-server-0-0"]
    rehearsal.update(serving(1))
    rehearsal.settle()
    assert rehearsal.uids == {"llm-0-server-0-0": kept}
    assert rehearsal.serving["status"]["availableReplicas"] == 1


def test_role_replicas_scale_up_and_down_without_a_rollout(rehearse: Rehearse, serving: Make, role: Make) -> None:
    rehearsal = rehearse(1, [role(replicas=1)])
    first = dict(rehearsal.uids)
    rehearsal.update(serving(1, [role(replicas=3)]))
    rehearsal.settle()
    assert len(rehearsal.engines) == 3
    rehearsal.update(serving(1, [role(replicas=1)]))
    rehearsal.settle()
    assert rehearsal.uids == first


def test_a_group_whose_role_scales_is_not_available_meanwhile(rehearse: Rehearse, serving: Make, role: Make) -> None:
    rehearsal = rehearse(1, [role(replicas=1)])
    rehearsal.update(serving(1, [role(replicas=2)]))
    rehearsal.run()
    assert rehearsal.serving["status"]["availableReplicas"] == 0
    rehearsal.settle()
    assert rehearsal.serving["status"]["availableReplicas"] == 1


def test_the_highest_deletion_cost_survives(rehearse: Rehearse, serving: Make) -> None:
    rehearsal = rehearse(4)
    for ordinal in range(4):
        rehearsal.engines[f"llm-{ordinal}-server-0-0"]["metadata"]["annotations"][COST] = str(100 * ordinal)
    rehearsal.update(serving(1))
    rehearsal.settle()
    assert ordinals(rehearsal) == [3]


def test_a_group_that_is_not_ready_goes_before_one_that_costs_less(rehearse: Rehearse, serving: Make) -> None:
    rehearsal = rehearse(4)
    rehearsal.engines["llm-0-server-0-0"]["status"]["phase"] = "Loading"
    rehearsal.engines["llm-0-server-0-0"]["metadata"]["annotations"][COST] = "1000"
    rehearsal.update(serving(3))
    rehearsal.settle()
    assert ordinals(rehearsal) == [1, 2, 3]


def test_groups_above_the_range_count_towards_having_enough(rehearse: Rehearse, serving: Make) -> None:
    rehearsal = rehearse(4)
    for ordinal in range(3):
        rehearsal.engines[f"llm-{ordinal}-server-0-0"]["metadata"]["annotations"][COST] = "-5"
    rehearsal.update(serving(1))
    rehearsal.settle()
    assert ordinals(rehearsal) == [3]
    rehearsal.update(serving(3))
    rehearsal.settle()
    assert ordinals(rehearsal) == [0, 1, 3]


def test_an_ordinal_that_still_goes_away_is_waited_for(rehearse: Rehearse, serving: Make) -> None:
    rehearsal = rehearse(2)
    rehearsal.update(serving(1))
    rehearsal.run()
    rehearsal.update(serving(2))
    assert not [step for step in rehearsal.run() if isinstance(step, CreateUnits)]
    rehearsal.settle()
    assert ordinals(rehearsal) == [0, 1]


def gang(rehearsal: Rehearsal) -> list[PlaceUnits]:
    rehearsal.has_room = False
    return [step for step in rehearsal.run() if isinstance(step, PlaceUnits)][-1:]


@pytest.mark.parametrize(
    ("least", "together"),
    [(None, 3), ({"prefill": 1, "decode": 1}, 2), ({"prefill": 1}, 2), ({"prefill": 2, "decode": 1}, 3)],
)
def test_a_gang_is_what_must_start_together(
    serving: Make, role: Make, least: dict[str, int] | None, together: int
) -> None:
    policy = {"gangPolicy": {"minRoleReplicas": least}} if least else {}
    obj = serving(1, [role("prefill", 2, workers=3), role("decode", 1, workers=2)], template=policy)
    obj["metadata"] |= {"uid": "u", "generation": 1}
    (placed,) = gang(Rehearsal(obj))
    assert len(placed.units) == together


def test_beyond_the_gang_each_role_replica_is_placed_on_its_own(serving: Make, role: Make) -> None:
    policy = {"gangPolicy": {"minRoleReplicas": {"server": 1}}}
    obj = serving(1, [role("server", 3)], template=policy)
    obj["metadata"] |= {"uid": "u", "generation": 1}
    placed = [step.units for step in Rehearsal(obj).run() if isinstance(step, PlaceUnits)]
    assert [len(units) for units in placed] == [1, 1, 1]
    assert placed[0][0].replica == 0


def test_zero_replicas_is_a_serving_with_nothing_and_available(rehearse: Rehearse) -> None:
    rehearsal = rehearse(0)
    assert rehearsal.engines == {}
    (condition,) = [c for c in rehearsal.serving["status"]["conditions"] if c["type"] == "Available"]
    assert condition["status"] == "True"


def test_deleting_the_serving_retires_everything_then_lets_it_go(rehearse: Rehearse) -> None:
    rehearsal = rehearse(2)
    rehearsal.serving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    rehearsal.step()
    assert not rehearsal.is_let_go
    rehearsal.finish_leaving()
    rehearsal.step()
    assert rehearsal.is_let_go


def test_the_status_counts_roles_and_selects_one_engine_a_group(rehearse: Rehearse, role: Make) -> None:
    rehearsal = rehearse(2, [role("prefill", 2), role("decode")])
    status = rehearsal.serving["status"]
    assert status["roles"] == [
        {"name": "prefill", "desiredReplicas": 4, "replicas": 4, "readyReplicas": 4},
        {"name": "decode", "desiredReplicas": 2, "replicas": 2, "readyReplicas": 2},
    ]
    wanted = dict(pair.split("=") for pair in status["labelSelector"].split(","))
    chosen = [name for name, e in rehearsal.engines.items() if wanted.items() <= e["metadata"]["labels"].items()]
    assert sorted(chosen) == ["llm-0-prefill-0-0", "llm-1-prefill-0-0"]
