"""What the fake can do beyond the contract: scripts in virtual time, and crashes on demand."""

from __future__ import annotations

import asyncio

from hekla.deployments.engines.lifecycle import Fetching, Healthy, Spawned
from hekla.deployments.fake_supervisor import FAKE_PID, FakeSupervisor, Script, Step
from hekla.platform.base.clock import VirtualClock, settle

LAUNCH = {"name": "e", "modelUri": "hf://org/name"}


async def phase(supervisor: FakeSupervisor) -> str:
    return str((await supervisor.report(0, 0))["phase"])


async def test_a_script_plays_in_virtual_time() -> None:
    clock = VirtualClock()
    steps = [Step(Fetching(0.5)), Step(Spawned(FAKE_PID, "http://10.0.0.1:1"), 60.0), Step(Healthy(("m",)), 30.0)]
    supervisor = FakeSupervisor(LAUNCH, Script(steps), clock)
    await supervisor.start()
    await settle()
    assert await phase(supervisor) == "Fetching"
    await clock.advance(60.0)
    assert await phase(supervisor) == "Loading"
    await clock.advance(30.0)
    assert await phase(supervisor) == "Ready"


async def test_a_crash_fails_a_ready_engine_with_its_reason() -> None:
    supervisor = FakeSupervisor(LAUNCH)
    await supervisor.start()
    await settle()
    assert (await supervisor.report(0, 0))["models"] == ["org/name"]
    supervisor.crash("the engine exited with code 1")
    report = await supervisor.report(0, 0)
    assert (report["phase"], report["message"]) == ("Failed", "the engine exited with code 1")


async def test_a_long_poll_ends_after_its_time_in_virtual_time() -> None:
    clock = VirtualClock()
    supervisor = FakeSupervisor(LAUNCH, Script(steps=()), clock)
    seen = (await supervisor.report(0, 0))["version"]
    waiting = asyncio.gather(supervisor.report(seen, 10.0))
    await clock.advance(9.9)
    assert not waiting.done()
    await clock.advance(0.1)
    (report,) = await waiting
    assert report["version"] == seen


async def test_a_busy_engine_drains_for_its_whole_grace() -> None:
    clock = VirtualClock()
    supervisor = FakeSupervisor(LAUNCH, Script(work=1), clock)
    await supervisor.start()
    await settle()
    draining = asyncio.gather(supervisor.drain(30.0))
    await clock.advance(29.9)
    assert await phase(supervisor) == "Draining"
    await clock.advance(0.1)
    await draining
    assert await phase(supervisor) == "Stopped"
