"""What becomes of an Engine's status, and of the room that engines hold."""

from __future__ import annotations

from hekla.deployments.engine_status import draining, failed, reported, started
from hekla.deployments.naming import actor_name
from hekla.deployments.placement import Share, nodes_with_room
from hekla.deployments.serving.adoption import orphans
from hekla.platform.api.meta import Json
from hekla.platform.cluster.interface import Node

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"


def test_an_engine_that_drains_does_not_become_ready_again() -> None:
    status = draining({"phase": "Ready"}, "scaled down")
    assert reported(status, {"phase": "Ready"}, NOW)["phase"] == "Draining"
    assert reported(status, {"phase": "Stopped"}, NOW)["phase"] == "Stopped"


def test_a_failure_stays_on_record_until_the_engine_is_ready_again() -> None:
    status = failed({"phase": "Ready", "address": "http://x"}, "killed", NOW)
    assert (status["failedAt"], status["address"]) == (NOW, "")
    status = started(status, LATER, restarts=1)
    assert (status["failedAt"], status["restarts"]) == (NOW, 1)
    assert reported(status, {"phase": "Failed"}, LATER)["failedAt"] == NOW, "the first moment counts"
    assert "failedAt" not in reported(status, {"phase": "Ready"}, LATER)


def test_ready_since_is_kept_through_later_reports() -> None:
    status = reported({"phase": "Loading"}, {"phase": "Ready"}, NOW)
    assert reported(status, {"phase": "Ready", "models": ["a", "lora"]}, LATER)["readyAt"] == NOW


def engine(uid: str, group: str, restarts: int = 0) -> Json:
    meta = {"namespace": "default", "name": f"e-{uid}", "uid": uid}
    return {"metadata": meta, "spec": {"placementGroup": group}, "status": {"restarts": restarts}}


def test_an_actor_of_an_earlier_incarnation_is_an_orphan() -> None:
    old, new = actor_name(engine("a", "g")), actor_name(engine("a", "g", restarts=1))
    found = orphans([engine("a", "engine.g", restarts=1)], [old, new, "sandbox"], ["engine.g", "engine.h", "strange"])
    assert (found.actors, found.placement_groups) == ((old,), ("engine.h",))


def test_room_is_the_lesser_of_what_the_cluster_says_and_what_is_not_promised() -> None:
    node = Node("n", "n", "1.1.1.1", {"CPU": 8.0, "GPU": 2.0}, {"CPU": 3.0, "GPU": 2.0})
    (found,) = nodes_with_room([node], [(Share("n", {"GPU": 1.0, "CPU": 1.0}),), (Share("gone", {"CPU": 1.0}),)])
    assert found.available == {"CPU": 3.0, "GPU": 1.0}
