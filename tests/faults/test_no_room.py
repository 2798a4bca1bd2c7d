"""Out of resources: the object says which resource is short on which nodes, waits, and starts when there is room."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from hekla.platform.api.meta import condition_status

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]


def schedulable(live: Any, name: str) -> Any:
    conditions = live.client.get("ModelServing", name).get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == "Schedulable"), {})


def free_cpus(live: Any) -> float:
    """CPUs free on the one node, once engines that just went have given theirs back."""

    def settled() -> bool:
        held = sum(engine["spec"].get("resources", {}).get("CPU", 0.0) for engine in live.client.list("Engine"))
        node = live.client.status()["nodes"][0]
        return bool(abs(node["total"]["CPU"] - held - node["free"]["CPU"]) < 1e-6)

    live.until(settled, "free CPUs and engines add up")
    return float(live.client.status()["nodes"][0]["free"]["CPU"])


def test_what_never_fits_says_so_and_creates_nothing(live: Any) -> None:
    with live.serving("too-big", replicas=1, resources={"cpu": "4000m", "nvidia.com/gpu": "8"}, wait=False):
        live.until(lambda: schedulable(live, "too-big-engine").get("status") == "False", "it says that it does not fit")
        message = schedulable(live, "too-big-engine")["message"]
        assert "GPU" in message and "8" in message
        engines = live.client.list("Engine", labels={"modelserving.volcano.sh/name": "too-big-engine"})
        assert all(engine["status"].get("pid", 0) == 0 for engine in engines)


def test_what_waits_for_room_starts_when_another_leaves(live: Any) -> None:
    free = free_cpus(live)
    half = f"{int(free * 1000 * 0.6)}m"
    with (
        live.serving("first", replicas=1, resources={"cpu": half}),
        live.serving("second", replicas=1, resources={"cpu": half}, wait=False) as second,
    ):
        live.until(lambda: schedulable(live, "second-engine").get("status") == "False", "the second waits")
        assert "CPU" in schedulable(live, "second-engine")["message"]
        body = {"model": second.model, "prompt": "hi"}
        assert httpx.post(f"{live.endpoint}/v1/completions", json=body, timeout=30).status_code == 503
        live.client.delete("ModelBooster", "first")
        live.client.wait_ready("ModelBooster", "second", timeout_s=90)
        assert condition_status(live.client.get("ModelServing", "second-engine"), "Schedulable") == "True"
        assert httpx.post(f"{live.endpoint}/v1/completions", json=body, timeout=30).status_code == 200


def test_a_gang_is_placed_whole_or_not_at_all(live: Any) -> None:
    free = free_cpus(live)
    most = f"{int(free * 1000 * 0.7)}m"
    with live.serving("gang", replicas=1, resources={"cpu": most}, disaggregated=True, wait=False):
        live.until(lambda: schedulable(live, "gang-engine").get("status") == "False", "the pair does not fit")
        engines = live.client.list("Engine", labels={"modelserving.volcano.sh/name": "gang-engine"})
        assert all(engine["status"].get("pid", 0) == 0 for engine in engines)
        assert live.client.status()["nodes"][0]["free"]["CPU"] == free
