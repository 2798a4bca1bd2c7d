"""The real supervisor with real processes: deaths, hangs, drains, and what is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from hekla.deployments.engines.node import NodeFacts
from hekla.deployments.models.source import Progress
from hekla.deployments.supervisor import WORKER_SETTLED_DEFAULT_S, EngineSupervisor
from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.errors import Temporary

DEADLINE_S = 60.0

ENGINE = """
import http.server, os, pathlib, sys
state = pathlib.Path(sys.argv[1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        sick = (state / "sick").exists()
        busy = (state / "busy").exists()
        (state / "asked").write_text(self.path)
        self.send_response(503 if sick or self.path == "/v1/models" else 200)
        self.end_headers()
        if self.path == "/metrics":
            (state / "drained").write_text("asked")
            self.wfile.write(b"vllm:num_requests_running{} %d\\nvllm:num_requests_waiting{} 0\\n" % busy)
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""

Make = Callable[..., EngineSupervisor]


@pytest.fixture
def node(tmp_path: Path) -> NodeFacts:
    return NodeFacts(
        node_name="here",
        cache_dir=tmp_path / "cache",
        log_dir=tmp_path / "logs",
        run_dir=tmp_path / "run",
        environ={"PATH": os.environ["PATH"]},
    )


@pytest.fixture
async def make(tmp_path: Path, node: NodeFacts) -> AsyncIterator[Make]:
    made: list[EngineSupervisor] = []
    (tmp_path / "engine.py").write_text(ENGINE)

    def build(*command: str, **launch: Any) -> EngineSupervisor:
        usual = (sys.executable, str(tmp_path / "engine.py"), str(tmp_path))
        fields = {"name": "e", "engine": "Command", "command": list(command or usual), "healthPeriodS": 0.05}
        made.append(EngineSupervisor({**fields, **launch}, node))
        return made[-1]

    yield build
    for supervisor in made:
        await supervisor.stop()


async def until(supervisor: EngineSupervisor, claim: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    report = await supervisor.report(0, 0)
    async with asyncio.timeout(DEADLINE_S):
        while not claim(report):
            report = await supervisor.report(report["version"], 1.0)
    return report


async def until_phase(supervisor: EngineSupervisor, *phases: str) -> dict[str, Any]:
    return await until(supervisor, lambda report: report["phase"] in phases)


async def until_true(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not claim():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def scratch_of(pid: int) -> Path:
    """An engine's own temporary folder."""
    folder = Path(psutil.Process(pid).environ()["TMPDIR"])
    assert folder.name.startswith("e-")
    assert folder.is_dir()
    return folder


async def test_an_engine_that_exits_fails_with_its_code_and_last_words(make: Make) -> None:
    supervisor = make("sh", "-c", "echo 'ValueError: the weights are bad'; exit 3")
    await supervisor.start()
    report = await until_phase(supervisor, "Failed")
    assert report["message"] == "the engine exited with code 3: ValueError: the weights are bad"


async def test_an_engine_that_is_killed_fails_with_the_signal(make: Make) -> None:
    supervisor = make()
    await supervisor.start()
    report = await until_phase(supervisor, "Ready")
    os.kill(report["pid"], signal.SIGKILL)
    report = await until_phase(supervisor, "Failed")
    assert report["message"].startswith("the engine was killed by SIGKILL")


async def test_an_engine_that_stops_answering_is_failed_and_killed(make: Make, tmp_path: Path) -> None:
    supervisor = make()
    await supervisor.start()
    pid = (await until_phase(supervisor, "Ready"))["pid"]
    (tmp_path / "sick").touch()
    report = await until_phase(supervisor, "Failed")
    assert report["message"] == "3 health probes failed in a row: /health answered 503"
    await until_true(lambda: not is_alive(pid))


async def test_an_engine_that_is_never_healthy_fails_when_its_start_up_time_is_over(make: Make, tmp_path: Path) -> None:
    (tmp_path / "sick").touch()
    supervisor = make(startupTimeoutS=0.2)
    await supervisor.start()
    report = await until_phase(supervisor, "Failed")
    assert report["message"].startswith("not healthy 0.2 s after its start: /health")
    await until_true(lambda: not is_alive(report["pid"]))


async def test_a_program_that_is_not_there_fails_with_its_name(make: Make) -> None:
    supervisor = make("/no/such/engine")
    await supervisor.start()
    report = await until_phase(supervisor, "Failed")
    assert "/no/such/engine" in report["message"]


async def test_a_model_that_is_not_there_fails_before_anything_is_started(make: Make) -> None:
    supervisor = make(modelUri="/no/such/model")
    await supervisor.start()
    report = await until_phase(supervisor, "Failed")
    assert report["message"] == "model path '/no/such/model': there is no /no/such/model on this node"
    assert report["pid"] == 0


async def test_a_program_without_a_models_page_serves_the_model_it_was_launched_for(make: Make) -> None:
    supervisor = make(servedModelName="mine")
    await supervisor.start()
    assert (await until_phase(supervisor, "Ready"))["models"] == ["mine"]


async def test_draining_waits_until_the_engine_is_idle(make: Make, tmp_path: Path) -> None:
    supervisor = make()
    (tmp_path / "busy").touch()
    await supervisor.start()
    pid = (await until_phase(supervisor, "Ready"))["pid"]
    draining = asyncio.gather(supervisor.drain(DEADLINE_S))
    await until_true((tmp_path / "drained").exists)
    assert is_alive(pid)
    assert (await supervisor.report(0, 0))["phase"] == "Draining"
    (tmp_path / "busy").unlink()
    await asyncio.wait_for(draining, DEADLINE_S)
    assert not is_alive(pid)
    assert (await supervisor.report(0, 0))["message"] == "drained"


async def test_draining_a_busy_engine_ends_when_the_grace_is_over(make: Make, tmp_path: Path) -> None:
    supervisor = make()
    (tmp_path / "busy").touch()
    await supervisor.start()
    pid = (await until_phase(supervisor, "Ready"))["pid"]
    await asyncio.wait_for(supervisor.drain(0.05), DEADLINE_S)
    assert not is_alive(pid)


async def test_stopping_leaves_no_process(make: Make, tmp_path: Path) -> None:
    note = tmp_path / "child"
    script = f"setsid sh -c 'echo $$ > {note}; exec sleep 600' & trap '' TERM; sleep 600"
    supervisor = make("sh", "-c", script)
    await supervisor.start()
    await until_true(lambda: note.exists() and note.read_text().endswith("\n"))
    pid = (await until_phase(supervisor, "Loading"))["pid"]
    await asyncio.wait_for(supervisor.stop(), DEADLINE_S)
    assert not is_alive(pid)
    assert not is_alive(int(note.read_text()))


async def test_two_engines_of_one_node_get_different_ports(make: Make) -> None:
    one, two = make(name="one"), make(name="two")
    await one.start()
    await two.start()
    addresses = {(await until_phase(each, "Ready"))["address"] for each in (one, two)}
    assert len(addresses) == 2


async def test_nothing_of_an_engine_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    program = f"""
import asyncio, json, pathlib
from hekla.deployments.engines.node import NodeFacts
from hekla.deployments.supervisor import EngineSupervisor
async def main():
    here = pathlib.Path({str(tmp_path)!r})
    node = NodeFacts(cache_dir=here, log_dir=here, run_dir=here / "run")
    launch = {{"name": "e", "engine": "Command", "command": ["sh", "-c", "sleep 600 & sleep 600"]}}
    supervisor = EngineSupervisor(launch, node)
    await supervisor.start()
    report = await supervisor.report(0, 0)
    while not report["pid"]:
        report = await supervisor.report(report["version"], 60)
    print(json.dumps(report), flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as supervisor:  # noqa: ASYNC220
        assert supervisor.stdout is not None
        report = json.loads(await asyncio.to_thread(supervisor.stdout.readline))
        scratch = scratch_of(report["pid"])
        family = [report["pid"], *(child.pid for child in psutil.Process(report["pid"]).children())]
        os.kill(supervisor.pid, signal.SIGKILL)
        await until_true(lambda: not any(is_alive(pid) for pid in family))
        await until_true(lambda: not scratch.exists())


def test_it_works_in_an_actors_loop_which_is_uvloop_in_a_thread(tmp_path: Path, node: NodeFacts) -> None:
    uvloop = pytest.importorskip("uvloop")
    (tmp_path / "engine.py").write_text(ENGINE)
    command = [sys.executable, str(tmp_path / "engine.py"), str(tmp_path)]
    phases: list[str] = []

    async def live() -> None:
        supervisor = EngineSupervisor({"name": "e", "engine": "Command", "command": command}, node)
        await supervisor.start()
        ready = await until_phase(supervisor, "Ready")
        os.kill(ready["pid"], signal.SIGKILL)
        phases.extend([ready["phase"], (await until_phase(supervisor, "Failed"))["phase"]])

    thread = threading.Thread(target=lambda: uvloop.run(live()))
    thread.start()
    thread.join(DEADLINE_S)
    assert phases == ["Ready", "Failed"]


class Network:
    """A source that is away for its first attempts; then it brings a model of one file."""

    def __init__(self, failures: int) -> None:
        self.attempts = 0
        self._failures = failures

    def download(self, uri: str, into: Path, env: Mapping[str, str], progress: Progress) -> None:
        self.attempts += 1
        if self.attempts <= self._failures:
            raise Temporary(f"{uri}: can't be reached now")
        (into / "config.json").write_text("{}")


def fetching(tmp_path: Path, node: NodeFacts, network: Network, clock: VirtualClock) -> EngineSupervisor:
    launch = {"name": "e", "engine": "Command", "modelUri": "hf://a/b", "command": ["sleep", "600"]}
    return EngineSupervisor(launch, node, clock, sources={"hf": network.download})


async def test_a_network_that_comes_back_lets_the_engine_start(tmp_path: Path, node: NodeFacts) -> None:
    network, clock = Network(failures=2), VirtualClock()
    supervisor = fetching(tmp_path, node, network, clock)
    await supervisor.start()
    for attempt, pause_s in ((2, 15.0), (3, 30.0)):
        await until(supervisor, lambda report: f"attempt {attempt} of 6" in report["message"])  # noqa: B023 - awaited here
        await clock.advance(pause_s - 0.1)
        assert network.attempts == attempt - 1
        await clock.advance(0.1)
    await until_phase(supervisor, "Loading")
    assert network.attempts == 3
    await supervisor.stop()


async def test_an_engine_that_waits_for_the_network_stops_at_once(tmp_path: Path, node: NodeFacts) -> None:
    network = Network(failures=99)
    supervisor = fetching(tmp_path, node, network, VirtualClock())
    await supervisor.start()
    await until(supervisor, lambda report: "attempt 2 of 6" in report["message"])
    await asyncio.wait_for(supervisor.stop(), DEADLINE_S)
    assert (await supervisor.report(0, 0))["phase"] == "Stopped"
    assert network.attempts == 1


async def test_a_worker_whose_log_says_nothing_is_ready_when_it_has_settled(node: NodeFacts) -> None:
    clock = VirtualClock()
    supervisor = EngineSupervisor(
        {"name": "w", "engine": "Command", "role": "worker", "command": ["sleep", "600"]}, node, clock
    )
    await supervisor.start()
    await until_phase(supervisor, "Loading")
    await clock.advance(WORKER_SETTLED_DEFAULT_S - 0.3)
    assert (await supervisor.report(0, 0))["phase"] == "Loading"
    await clock.advance(0.6)
    assert (await supervisor.report(0, 0))["phase"] == "Ready"
    await supervisor.stop()


async def test_a_worker_that_has_its_weights_is_ready(node: NodeFacts) -> None:
    script = "echo 'Loading weights took 1.00 seconds'; exec sleep 600"
    clock = VirtualClock()
    supervisor = EngineSupervisor(
        {"name": "w", "engine": "vLLM", "role": "worker", "command": ["sh", "-c", script]}, node, clock
    )
    await supervisor.start()
    # It is ready at once when its words were there before the first look.
    await until(supervisor, lambda report: report["progress"] >= 0.5 or report["phase"] == "Ready")
    await clock.advance(0.3)
    assert (await supervisor.report(0, 0))["phase"] == "Ready"
    await supervisor.stop()
