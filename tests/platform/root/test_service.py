"""The platform in one process, through its own HTTP listener: what `hekla up` runs, without Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hekla.platform.api.meta import Json
from hekla.platform.base.errors import NotFound

Simulated = Callable[..., Json]
Until = Callable[..., Any]
SERVING = "chat-engine"
EXAMPLES = Path(__file__).parents[3] / "examples"


async def test_a_booster_becomes_ready_engines_and_leaves_nothing_when_deleted(
    platform: Any, simulated: Simulated, until: Until
) -> None:
    _, client = await platform.start()
    applied = await client.apply([simulated("chat", replicas=2)])
    assert [str(result) for result in applied] == ["ModelBooster default/chat created"]
    await client.wait_ready("ModelBooster", "chat", timeout_s=30)
    engines = await client.list("Engine")
    assert [engine["status"]["phase"] for engine in engines] == ["Ready", "Ready"]
    assert len(await platform.cluster.actors()) == len(await platform.cluster.placement_groups()) == 2
    assert {child["kind"] for kind in ("ModelRoute", "ModelServer") for child in await client.list(kind)} == {
        "ModelRoute", "ModelServer"
    }  # fmt: skip

    await client.delete("ModelBooster", "chat")
    await client.wait_gone("ModelBooster", "chat", timeout_s=30)

    async def is_empty() -> bool:
        return not (await client.list("Engine") or await client.list("ModelServing"))

    await until(is_empty, "its children are gone")
    assert await platform.cluster.actors() == await platform.cluster.placement_groups() == set()


async def test_the_summary_tells_of_nodes_models_engines_and_the_platform_itself(
    platform: Any, simulated: Simulated
) -> None:
    _, client = await platform.start()
    await client.apply([simulated("chat")])
    await client.wait_ready("ModelBooster", "chat", timeout_s=30)
    summary = await client.status()
    assert summary["endpoint"] == "http://127.0.0.1:8123"
    (node,) = summary["nodes"]
    assert (node["name"], node["head"], node["engines"]) == ("node-a", True, 1)
    assert node["free"]["CPU"] == pytest.approx(3.9)
    (model,) = summary["models"]
    assert (model["name"], model["owner"], model["enginesReady"], model["engines"]) == (
        "chat", "ModelBooster/chat", 1, 1
    )  # fmt: skip
    (engine,) = summary["engines"]
    assert (engine["phase"], engine["address"]) == ("Ready", "http://127.0.0.1:1")
    assert summary["totals"]["enginesReady"] == summary["totals"]["servings"] == 1
    assert set(summary["platform"]) == {"pid", "startedAt", "controllers"}


async def test_an_engines_log_is_read_through_its_supervisor(platform: Any, simulated: Simulated) -> None:
    _, client = await platform.start()
    await client.apply([simulated("chat")])
    await client.wait_ready("ModelBooster", "chat", timeout_s=30)
    (engine,) = await client.list("Engine")
    platform.supervisor(engine).write_log("one\ntwo\nthree\n")
    name = engine["metadata"]["name"]
    assert "".join([text async for text in client.logs(name)]) == "one\ntwo\nthree\n"
    assert "".join([text async for text in client.logs(name, tail_lines=1)]) == "three\n"
    with pytest.raises(NotFound):
        [text async for text in client.logs("nobody")]


async def test_the_log_of_an_engine_that_waits_for_room_is_refused_and_says_so(
    platform: Any, simulated: Simulated, until: Until
) -> None:
    _, client = await platform.start()
    await client.apply([simulated("big", resources={"cpu": "64"})])
    (engine,) = await until(lambda: client.list("Engine"), "its engine is declared")
    with pytest.raises(NotFound, match="no process"):
        [text async for text in client.logs(engine["metadata"]["name"])]

    async def shortage() -> str:
        (model,) = (await client.status())["models"] or [{"message": ""}]
        return str(model["message"])

    assert "CPU" in await until(shortage, "the summary says what is short")


async def test_stopping_with_engines_leaves_servings_and_the_next_start_brings_them_back(
    platform: Any, simulated: Simulated
) -> None:
    first, client = await platform.start()
    await client.apply([simulated("chat")])
    await client.wait_ready("ModelBooster", "chat", timeout_s=30)
    (old,) = await client.list("Engine")
    await platform.stop(first, stop_engines=True)
    assert await platform.cluster.actors() == await platform.cluster.placement_groups() == set()

    _, client = await platform.start()
    await client.get("ModelServing", SERVING)
    await client.wait_ready("ModelBooster", "chat", timeout_s=30)
    (new,) = await client.list("Engine")
    assert new["metadata"]["name"] == old["metadata"]["name"]
    assert new["metadata"]["uid"] != old["metadata"]["uid"]


async def test_stopping_with_engines_leaves_no_engine_object_in_the_store(
    platform: Any, simulated: Simulated, stored: Callable[[], list[str]]
) -> None:
    number, client = await platform.start()
    await client.apply([simulated("chat", replicas=2)])
    await client.wait_ready("ModelBooster", "chat", timeout_s=30)
    await platform.stop(number, stop_engines=True)
    kinds = stored()
    assert "Engine" not in kinds
    assert {"ModelBooster", "ModelServing", "ModelServer", "ModelRoute"} <= set(kinds)


async def test_a_service_that_went_away_without_stopping_engines_finds_them_again(
    platform: Any, simulated: Simulated
) -> None:
    first, client = await platform.start()
    await client.apply([simulated("chat")])
    await client.wait_ready("ModelBooster", "chat", timeout_s=30)
    (before,) = await client.list("Engine")
    actors = await platform.cluster.actors()
    await platform.stop(first, stop_engines=False)
    assert await platform.cluster.actors() == actors

    second, client = await platform.start()
    await client.wait_ready("ModelBooster", "chat", timeout_s=30)
    (after,) = await client.list("Engine")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert await platform.cluster.actors() == actors
    platform.supervisor(after).write_log("still the same\n")
    assert "".join([text async for text in client.logs(after["metadata"]["name"])]) == "still the same\n"
    await platform.stop(second, stop_engines=True)


async def test_an_engine_that_does_not_stop_by_itself_does_not_keep_the_platform_from_stopping(
    platform: Any, simulated: Simulated
) -> None:
    number, client = await platform.start()
    await client.apply([simulated("chat", replicas=2)])
    await client.wait_ready("ModelBooster", "chat", timeout_s=30)
    victim = min(await platform.cluster.actors())
    platform.cluster.kill_actor(victim)
    await platform.stop(number, stop_engines=True)
    assert await platform.cluster.actors() == await platform.cluster.placement_groups() == set()


@pytest.mark.parametrize(("folder", "serving"), [("simulated", "simulated-sim"), ("native", "native")])
async def test_an_example_of_simulated_engines_becomes_ready(platform: Any, folder: str, serving: str) -> None:
    _, client = await platform.start()
    await client.apply(EXAMPLES / folder)
    obj = await client.wait_ready("ModelServing", serving, timeout_s=30)
    engines = await client.list("Engine", labels={"modelserving.volcano.sh/name": serving})
    assert {engine["spec"]["role"] for engine in engines} == {"prefill", "decode"}
    (model,) = (await client.status())["models"]
    assert model["enginesReady"] == model["engines"] == 2 * obj["spec"]["replicas"]
