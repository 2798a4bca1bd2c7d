"""Engines for the tests: cores in virtual time, and real processes."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest

from hekla.deployments.simengine.core import CoreConfig, EngineCore
from hekla.deployments.simengine.events import Event
from hekla.deployments.simengine.scheduler import Limits
from hekla.deployments.simengine.sequence import EngineRequest, Output, Pull
from hekla.deployments.simengine.steps import Linear

START_S_MAX = 30.0


@dataclass
class Bench:
    """A core with a clock of its own; `run` steps it until idle, checking invariants at every step."""

    core: EngineCore
    now: float = 0.0
    outputs: list[Output] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    pulls: list[Pull] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)

    def add(self, name: str, prompt: list[int], max_tokens: int, **more: Any) -> None:
        more.setdefault("ignore_eos", True)
        self.core.add(EngineRequest(name, prompt, max_tokens, **more), self.now)

    def step(self) -> bool:
        """One step; False when nothing could run."""
        result = self.core.step(self.now)
        self.now += result.duration_s
        self.outputs += result.outputs
        self.events += result.events
        self.pulls += result.pulls
        self.durations.append(result.duration_s)
        self.core.check()
        return bool(result.tokens or result.outputs)

    def run(self, steps_max: int = 10_000) -> None:
        for _ in range(steps_max):
            if not self.step():
                return
        raise AssertionError(f"still busy after {steps_max} steps: {self.core.pool}")

    def tokens(self, name: str) -> list[int]:
        return [item.token for item in self.outputs if item.request_id == name and item.token is not None]

    def last(self, name: str) -> Output:
        return [item for item in self.outputs if item.request_id == name][-1]


@pytest.fixture
def bench() -> Callable[..., Bench]:
    """bench(blocks=…, max_num_seqs=…, …): keyword arguments of `Limits` go there, the rest to `CoreConfig`."""

    def make(blocks: int = 64, linear: Linear | None = None, **options: Any) -> Bench:
        names = Limits.__slots__
        limits = replace(Limits(max_model_len=512), **{key: options.pop(key) for key in list(options) if key in names})
        config = CoreConfig(options.pop("model", "m"), blocks, limits=limits, **options)
        return Bench(EngineCore(config, linear or Linear(1.0, 0.1, 0.5)))

    return make


@dataclass
class Server:
    url: str
    process: subprocess.Popen[bytes]

    def metric(self, name: str, labels: str = "") -> float:
        for line in httpx.get(f"{self.url}/metrics").text.splitlines():
            if line.startswith((f"{name} ", f"{name}{{")) and labels in line:
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no metric {name} with {labels!r}")

    def wait_for(self, name: str, wanted: float, labels: str = "", *, deadline_s: float = 10.0) -> None:
        end = time.monotonic() + deadline_s
        while (value := self.metric(name, labels)) != wanted:
            assert time.monotonic() < end, f"{name} is {value}, not {wanted}, after {deadline_s} s"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_server(*arguments: str) -> Server:
    port = free_port()
    command = [sys.executable, "-m", "hekla.deployments.simengine", "--model", "sim", "--host", "127.0.0.1"]
    process = subprocess.Popen([*command, "--port", str(port), *arguments])
    server = Server(f"http://127.0.0.1:{port}", process)
    end = time.monotonic() + START_S_MAX
    while True:
        assert process.poll() is None, f"the engine exited with {process.returncode}"
        assert time.monotonic() < end, f"the engine did not listen within {START_S_MAX} s"
        try:
            httpx.get(f"{server.url}/version", timeout=1)
            return server
        except httpx.TransportError:
            process_gone(process, 0.02)


def process_gone(process: subprocess.Popen[bytes], within_s: float) -> bool:
    try:
        process.wait(within_s)
        return True
    except subprocess.TimeoutExpired:
        return False


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., Server]]:
    """serve("--flag", "value", …) starts an engine process that ends with the module."""
    started: list[Server] = []

    def make(*arguments: str) -> Server:
        started.append(start_server(*arguments))
        return started[-1]

    yield make
    for server in started:
        server.process.terminate()
    for server in started:
        if not process_gone(server.process, 5):
            server.process.kill()
            server.process.wait()
