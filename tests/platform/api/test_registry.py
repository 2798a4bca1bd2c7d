from __future__ import annotations

import pytest

from hekla.platform.api.meta import Condition, condition_status, set_condition
from hekla.platform.api.registry import all_kinds, kind_at, kind_named
from hekla.platform.base.errors import NotFound


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mb", "ModelBooster"),
        ("modelboosters", "ModelBooster"),
        ("ms", "ModelServing"),
        ("ModelServing", "ModelServing"),
        ("mserver", "ModelServer"),
        ("mroute", "ModelRoute"),
        ("modelroutes.networking.serving.volcano.sh", "ModelRoute"),
    ],
)
def test_a_kind_answers_to_all_its_names(name: str, kind: str) -> None:
    assert kind_named(name).kind == kind


def test_an_unknown_kind_is_told_what_there_is() -> None:
    with pytest.raises(NotFound, match=r"no resource kind 'toaster'; known kinds: .*modelservings"):
        kind_named("toaster")


def test_kinds_are_found_by_their_path() -> None:
    for kind in all_kinds().values():
        assert kind_at(kind.group, kind.version, kind.plural) is kind
    with pytest.raises(NotFound):
        kind_at("workload.serving.volcano.sh", "v2", "modelservings")


def test_no_name_means_two_kinds() -> None:
    names = [name for kind in all_kinds().values() for name in {kind.kind.lower(), kind.plural, *kind.short_names}]
    assert len(names) == len(set(names))


def test_only_a_serving_scales() -> None:
    scaled = {kind.kind: kind.scale_path for kind in all_kinds().values() if kind.group.startswith("workload.serving")}
    assert scaled["ModelServing"] == "spec.replicas"
    assert scaled["ModelBooster"] is None


def test_a_transition_time_moves_only_with_the_status() -> None:
    once = set_condition([], Condition(type="Active", status="False", reason="Creating"), "t1")
    again = set_condition(once, Condition(type="Active", status="False", reason="Processing"), "t2")
    assert (again[0]["lastTransitionTime"], again[0]["reason"]) == ("t1", "Processing")
    later = set_condition(again, Condition(type="Active", status="True"), "t3")
    assert later[0]["lastTransitionTime"] == "t3"
    assert condition_status({"status": {"conditions": later}}, "Active") == "True"
    assert condition_status({}, "Active") == "Unknown"
