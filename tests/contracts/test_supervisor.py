"""The contract of an engine supervisor, over the fake and the real one with a small real HTTP server as its engine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from hekla.deployments.engines.node import NodeFacts
from hekla.deployments.fake_supervisor import FakeSupervisor
from hekla.deployments.supervisor import EngineSupervisor

DEADLINE_S = 60.0

ENGINE = """
import http.server, json, sys
print("engine says hello", flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        pages = {
            "/health": "",
            "/v1/models": json.dumps({"data": [{"id": "tiny", "max_model_len": 128}]}),
            "/metrics": 'vllm:num_requests_running{engine="0"} 0.0\\nvllm:num_requests_waiting{engine="0"} 0.0\\n',
        }
        self.send_response(200 if self.path in pages else 404)
        self.end_headers()
        self.wfile.write(pages.get(self.path, "").encode())
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""


class Supervisor(Protocol):
    async def start(self) -> None: ...
    async def report(self, seen: int, wait_s: float) -> dict[str, Any]: ...
    async def drain(self, grace_s: float) -> None: ...
    async def stop(self) -> None: ...
    async def logs(self, offset: int, limit: int) -> dict[str, Any]: ...


Make = Callable[[], Supervisor]


@pytest.fixture(params=["fake", "real"])
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Supervisor] = []
    script = tmp_path / "engine.py"
    script.write_text(ENGINE)
    launch = {
        "name": "contract", "engine": "Command", "servedModelName": "tiny", "healthPeriodS": 0.1,
        "command": [sys.executable, str(script), "--port", "8000"],
    }  # fmt: skip
    node = NodeFacts(
        node_name="here", cache_dir=tmp_path / "cache", log_dir=tmp_path / "logs", run_dir=tmp_path / "run"
    )

    def build() -> Supervisor:
        supervisor: Supervisor
        if request.param == "fake":
            supervisor = FakeSupervisor(launch)
            supervisor.write_log("engine says hello\n")
        else:
            supervisor = EngineSupervisor(launch, node)
        made.append(supervisor)
        return supervisor

    yield build
    for supervisor in made:
        await supervisor.stop()


async def until_phase(supervisor: Supervisor, phase: str) -> dict[str, Any]:
    seen: list[dict[str, Any]] = [await supervisor.report(0, 0)]
    async with asyncio.timeout(DEADLINE_S):
        while seen[-1]["phase"] != phase:
            seen.append(await supervisor.report(seen[-1]["version"], 1.0))
    return seen[-1]


async def within_deadline(work: Awaitable[None]) -> None:
    await asyncio.wait_for(work, DEADLINE_S)


async def test_a_new_supervisor_has_started_nothing(make: Make) -> None:
    report = await make().report(0, 0)
    assert (report["phase"], report["pid"], report["address"]) == ("Starting", 0, "")


async def test_a_started_engine_becomes_ready_and_says_where_it_is(make: Make) -> None:
    supervisor = make()
    await supervisor.start()
    report = await until_phase(supervisor, "Ready")
    assert report["address"].startswith("http://127.0.0.1:")
    assert report["models"] == ["tiny"]
    assert report["pid"] > 0
    assert report["supervisorPid"] > 0


async def test_starting_twice_starts_one_engine(make: Make) -> None:
    supervisor = make()
    await supervisor.start()
    first = await until_phase(supervisor, "Ready")
    await supervisor.start()
    again = await supervisor.report(0, 0)
    assert again["pid"] == first["pid"]
    assert again["phase"] == "Ready"


async def test_a_report_waits_until_there_is_news(make: Make) -> None:
    supervisor = make()
    await supervisor.start()
    ready = await until_phase(supervisor, "Ready")
    waiting = asyncio.gather(supervisor.report(ready["version"], DEADLINE_S))
    await asyncio.sleep(0)
    assert not waiting.done()
    await supervisor.stop()
    (news,) = await asyncio.wait_for(waiting, DEADLINE_S)
    assert news["version"] > ready["version"]
    assert news["phase"] == "Stopped"


async def test_a_report_without_news_returns_when_its_time_is_over(make: Make) -> None:
    supervisor = make()
    first = await supervisor.report(0, 0)
    same = await asyncio.wait_for(supervisor.report(first["version"], 0.01), DEADLINE_S)
    assert same == first


async def test_a_drained_engine_is_stopped(make: Make) -> None:
    supervisor = make()
    await supervisor.start()
    await until_phase(supervisor, "Ready")
    await within_deadline(supervisor.drain(30.0))
    assert (await supervisor.report(0, 0))["phase"] == "Stopped"


async def test_draining_before_it_is_ready_stops_at_once(make: Make) -> None:
    supervisor = make()
    await within_deadline(supervisor.drain(30.0))
    assert (await supervisor.report(0, 0))["phase"] == "Stopped"


async def test_a_stopped_engine_stays_stopped(make: Make) -> None:
    supervisor = make()
    await supervisor.start()
    await until_phase(supervisor, "Ready")
    await within_deadline(supervisor.stop())
    await within_deadline(supervisor.stop())
    await within_deadline(supervisor.drain(1.0))
    await supervisor.start()
    assert (await supervisor.report(0, 0))["phase"] == "Stopped"


async def test_logs_are_read_from_an_offset_and_from_the_end(make: Make) -> None:
    supervisor = make()
    await supervisor.start()
    await until_phase(supervisor, "Ready")
    whole = await supervisor.logs(0, 1 << 20)
    assert "engine says hello" in whole["text"]
    assert whole["next"] == whole["size"] == len(whole["text"].encode())
    tail = await supervisor.logs(-6, 1 << 20)
    assert tail["text"] == whole["text"][-6:]
    part = await supervisor.logs(2, 3)
    assert (part["text"], part["next"]) == (whole["text"][2:5], 5)
