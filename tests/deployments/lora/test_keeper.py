"""An engine's adapters under its supervisor: the same contract over the fake engine and the simulated one over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hekla.deployments.engines.node import NodeFacts
from hekla.deployments.fake_supervisor import FakeSupervisor
from hekla.deployments.lora.engine_api import FakeAdapterApi, adapters_in_use, said
from hekla.deployments.lora.files import check_folder
from hekla.deployments.lora.keeper import AdapterKeeper
from hekla.deployments.lora.model import AdapterAsk
from hekla.deployments.supervisor import EngineSupervisor
from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.errors import Permanent
from hekla.platform.base.tasks import TaskOwner

DEADLINE_S = 60.0
Supervisor = FakeSupervisor | EngineSupervisor
LAUNCH: dict[str, Any] = {
    "name": "sim",
    "engine": "Simulated",
    "modelUri": "base",
    "servedModelName": "base",
    "healthPeriodS": 0.1,
    "args": ["--enable-lora", "--max-loras", "1", "--max-model-len", "2048", "--time-scale", "0.2"],
}


@pytest.fixture(params=["fake", "real"])
async def supervisor(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Supervisor]:
    node = NodeFacts.read({"HEKLA_HOME": str(tmp_path), "HEKLA_RUN_DIR": str(tmp_path / "run")})
    made: Supervisor = FakeSupervisor(LAUNCH) if request.param == "fake" else EngineSupervisor(LAUNCH, node)
    await made.start()
    yield made
    await made.stop()


def asks(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "uri": f"/adapters/{name}"} for name in names]


async def until(supervisor: Supervisor, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    report = await supervisor.report(0, 0)
    async with asyncio.timeout(DEADLINE_S):
        while not holds(report):
            assert report["phase"] != "Failed", report
            report = await supervisor.report(report["version"], 1.0)
    return report


def states(report: dict[str, Any]) -> dict[str, str]:
    return {found["name"]: found["state"] for found in report["adapters"]}


async def test_an_adapter_asked_for_before_the_engine_is_ready_is_loaded_then(supervisor: Supervisor) -> None:
    await supervisor.set_adapters("default/s", asks("a"))
    report = await until(supervisor, lambda found: states(found) == {"a": "Loaded"})
    assert (report["phase"], report["models"], report["adapterSlots"]) == ("Ready", ["base", "a"], 1)
    assert report["adapters"][0]["owner"] == "default/s"


async def test_one_beyond_the_slots_waits_until_another_is_gone(supervisor: Supervisor) -> None:
    await supervisor.set_adapters("default/s", asks("a"))
    await until(supervisor, lambda found: states(found) == {"a": "Loaded"})
    await supervisor.set_adapters("default/s", asks("a", "b"))
    report = await until(supervisor, lambda found: states(found).get("b") == "Loading")
    assert report["models"] == ["base", "a"]
    await supervisor.set_adapters("default/s", asks("b"))
    assert "a" not in (await supervisor.report(0, 0))["models"], "clients are told at once"
    report = await until(supervisor, lambda found: states(found) == {"b": "Loaded"})
    assert report["models"] == ["base", "b"]


async def test_owners_share_an_engine_and_each_takes_back_only_its_own(supervisor: Supervisor) -> None:
    await supervisor.set_adapters("default/one", asks("a"))
    await supervisor.set_adapters("default/two", asks("a"))
    await until(supervisor, lambda found: states(found) == {"a": "Loaded"})
    await supervisor.set_adapters("default/one", [])
    report = await until(supervisor, lambda found: found["adapters"][0]["owner"] == "default/two")
    assert states(report) == {"a": "Loaded"}


@pytest.mark.parametrize("supervisor", ["real"], indirect=True)
async def test_an_adapter_is_not_unloaded_under_its_requests(supervisor: Supervisor) -> None:
    await supervisor.set_adapters("default/s", asks("a"))
    report = await until(supervisor, lambda found: states(found) == {"a": "Loaded"})
    body = {"model": "a", "prompt": "x", "max_tokens": 900, "ignore_eos": True, "stream": True}
    async with (
        aiohttp.ClientSession(report["address"]) as session,
        session.post("/v1/completions", json=body) as answer,
    ):
        await answer.content.readline()
        await supervisor.set_adapters("default/s", asks("b"))
        text = (await answer.read()).decode()
        held = await served(session)
    assert text.rstrip().endswith("[DONE]")
    assert "a" in held, "its slot is its own until its request has ended"
    await until(supervisor, lambda found: states(found) == {"b": "Loaded"})


async def served(session: aiohttp.ClientSession) -> list[str]:
    async with session.get("/v1/models") as answer:
        return [card["id"] for card in (await answer.json())["data"]]


class Desk:
    """A keeper in virtual time."""

    def __init__(self, slots: int) -> None:
        self.clock, self.api, self.changes = VirtualClock(), FakeAdapterApi(), 0
        self.tasks = TaskOwner("desk")
        self.fetch: Callable[[str], Awaitable[Path]] = self._at_once
        self.keeper = AdapterKeeper(
            slots, lambda: self.api, lambda uri: self.fetch(uri), clock=self.clock, tasks=self.tasks,
            on_change=self._changed,
        )  # fmt: skip
        self.keeper.open()

    async def ask(self, *names: str, seconds: float = 0.0) -> None:
        self.keeper.ask("default/s", [AdapterAsk(name=name, uri=f"/{name}") for name in names])
        await self.clock.advance(seconds)

    @property
    def states(self) -> dict[str, str]:
        return {found.name: found.state for found in self.keeper.adapters}

    async def _at_once(self, uri: str) -> Path:
        return Path(uri)

    def _changed(self) -> None:
        self.changes += 1


async def test_wanted_again_while_it_drains_it_stays_loaded() -> None:
    desk = Desk(1)
    await desk.ask("a", seconds=1)
    await desk.ask()
    assert desk.states == {"a": "Draining"}
    assert desk.keeper.models(["base", "a"]) == ("base",)
    await desk.ask("a", seconds=60)
    assert desk.states == {"a": "Loaded"}
    assert desk.keeper.models(["base"]) == ("base", "a")
    assert desk.api.loaded == {"a": "/a"}


async def test_an_adapter_in_use_drains_for_as_long_as_it_takes() -> None:
    desk = Desk(1)
    await desk.ask("a", seconds=1)
    desk.api.using.add("a")
    await desk.ask("b", seconds=3600)
    assert (desk.states, set(desk.api.loaded)) == ({"a": "Draining", "b": "Loading"}, {"a"})
    desk.api.using.clear()
    await desk.clock.advance(5)
    assert (desk.states, set(desk.api.loaded), desk.api.unloaded_in_use) == ({"b": "Loaded"}, {"b"}, [])


async def test_a_fetch_for_nobody_any_more_is_given_up() -> None:
    desk = Desk(1)
    never = asyncio.Event()

    async def slow(uri: str) -> Path:
        await never.wait()
        return Path(uri)

    desk.fetch = slow
    await desk.ask("a", seconds=1)
    assert desk.states == {"a": "Fetching"}
    await desk.ask(seconds=1)
    assert desk.states == {}
    assert repr(desk.tasks).endswith("running=[])")


async def test_a_failure_names_its_reason_and_another_try_can_succeed() -> None:
    desk = Desk(1)
    desk.api.refused["a"] = "bad rank"
    await desk.ask("a", seconds=1)
    assert [found.message for found in desk.keeper.adapters] == ["the engine refused it (400): bad rank"]
    desk.api.refused.clear()
    await desk.ask(seconds=1)
    await desk.ask("a", seconds=1)
    assert desk.states == {"a": "Loaded"}


async def test_a_changed_uri_is_loaded_anew_after_the_old_one_has_drained() -> None:
    desk = Desk(1)
    await desk.ask("a", seconds=1)
    desk.keeper.ask("default/s", [AdapterAsk(name="a", uri="/second")])
    await desk.clock.advance(10)
    assert (desk.states, desk.api.loaded) == ({"a": "Loaded"}, {"a": "/second"})


async def test_without_lora_the_reason_is_said() -> None:
    desk = Desk(0)
    await desk.ask("a", seconds=1)
    assert [(f.state, f.message) for f in desk.keeper.adapters] == [("Failed", "the engine runs without --enable-lora")]


def test_the_latest_word_on_adapters_in_use_counts_and_an_idle_engine_uses_none() -> None:
    info = 'vllm:lora_requests_info{max_lora="2",running_lora_adapters="%s",waiting_lora_adapters="%s"} %s\n'
    page = info % ("a", "", 10) + info % ("b", "c,d", 11) + 'vllm:num_requests_running{engine="0"} %s\n'
    assert adapters_in_use(page % 2) == {"b", "c", "d"}
    assert adapters_in_use(page % 0) == frozenset()
    assert adapters_in_use("") == frozenset()


def test_an_engines_error_is_read_whatever_its_shape() -> None:
    assert said('{"error": {"message": "m", "type": "t"}}') == "m"
    assert said('{"message": "m"}') == "m"
    assert said("plain") == "plain"


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"r": 64}, "its rank is 64; the engine takes up to 16"),
        ({"r": 8, "rank_pattern": {"q_proj": 32}}, "its rank is 32; the engine takes up to 16"),
        ({"r": "8"}, "r is '8'; allowed: a whole number"),
        ([], "r is None; allowed"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_with_the_reason(tmp_path: Path, config: object, problem: str) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(Permanent, match=problem):
        check_folder(tmp_path, 16)


def test_a_folder_without_weights_or_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match=r"has no weights; allowed: adapter_model.safetensors"):
        check_folder(tmp_path, 0)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(Permanent, match=r"adapter_config.json can't be read"):
        check_folder(tmp_path, 0)
