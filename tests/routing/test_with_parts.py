"""The ingress with the parts it meets in a deployment: the resource API over HTTP, and engine processes that die."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from hekla.platform.base.clock import SystemClock
from hekla.platform.base.ids import SeededIds
from hekla.platform.server.local_server import LocalServer
from hekla.routing.app import build_ingress
from hekla.routing.config import AccessLogSettings, GossipSettings, RoutingSettings

StartEngine = Callable[..., Awaitable[tuple[str, asyncio.subprocess.Process]]]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
async def start_engine(kit: Any) -> AsyncIterator[StartEngine]:
    """A simulated engine in a process of its own; gives its URL and the process."""
    processes: list[asyncio.subprocess.Process] = []

    async def start(*arguments: str) -> tuple[str, asyncio.subprocess.Process]:
        port = free_port()
        command = ["-m", "hekla.deployments.simengine", "served-m", "--host", "127.0.0.1", "--port", str(port)]
        process = await asyncio.create_subprocess_exec(sys.executable, *command, *arguments)
        processes.append(process)
        url = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession() as session, asyncio.timeout(60):
            while True:
                try:
                    async with session.get(url + "/health") as response:
                        assert response.status == 200
                        return url, process
                except aiohttp.ClientError:
                    assert process.returncode is None, "the engine ended"
                    await asyncio.sleep(0.05)

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_table_comes_from_the_resource_api_and_survives_its_end(kit: Any, start_backend: Any) -> None:
    backend = await start_backend()
    with LocalServer() as server:
        ingress = build_ingress(
            RoutingSettings(access_log=AccessLogSettings(enabled=False), gossip=GossipSettings(host="127.0.0.1")),
            clock=SystemClock(), ids=SeededIds(1), platform_url=lambda: server.url,
        )  # fmt: skip
        await ingress.start()
        for obj in kit.objects(backend):
            await asyncio.to_thread(server.edit, lambda store, obj=obj: store.create(obj))
        await kit.until(lambda: len(ingress.keeper.table.servers) == 1, "the server arrived")
        await kit.until(lambda: bool(ingress.keeper.table.servers[("default", "s")].backends), "its engine too")
    assert ingress.keeper.table.models == ("m",)
    await ingress.stop()


async def test_prefill_and_decode_engines_share_one_request(
    start_site: Any, start_engine: StartEngine, kit: Any
) -> None:
    transfer = ("--kv-transfer-config", json.dumps({"kv_connector": "NixlConnector", "kv_role": "kv_both"}))
    fast = ("--time-scale", "0.1", "--kv-side-channel-port", "0")
    (first, _), (second, _) = await asyncio.gather(*(start_engine(*transfer, *fast) for _ in range(2)))
    group = {"groupKey": "g", "prefillLabels": {"role": "prefill"}, "decodeLabels": {"role": "decode"}}
    server = kit.model_server(
        workloadSelector={"matchLabels": {"app": "m"}, "pdGroup": group}, kvConnector={"type": "nixl"}
    )
    engines = [
        kit.engine("p", first, app="m", g="0", role="prefill"),
        kit.engine("d", second, app="m", g="0", role="decode"),
    ]
    site = await start_site(kit.model_route(), server, *engines)
    messages = [{"role": "user", "content": "tell me of volcanoes " * 40}]
    text = await site.stream(messages=messages, max_tokens=8)
    assert text.endswith(b"data: [DONE]\n\n")
    assert b'"error"' not in text
    assert site.sample("tokens_total", token_type="output") == 8
    assert site.sample("tokens_total", token_type="input") > 100


async def test_an_engine_killed_mid_stream_is_replaced_by_another_and_the_client_does_not_see_it(
    start_site: Any, start_engine: StartEngine, kit: Any
) -> None:
    (first, one), (second, two) = await asyncio.gather(*(start_engine("--step-ms-base", "20") for _ in range(2)))
    processes = {"default/a": one, "default/b": two}
    engines = [kit.engine("a", first), kit.engine("b", second)]
    site = await start_site(kit.model_route(), kit.model_server(), *engines)
    body = {"model": "m", "prompt": "x", "stream": True, "max_tokens": 60, "ignore_eos": True, "temperature": 0}
    async with site.client.post("/v1/completions", json=body) as response:
        await response.content.readline()
        (serving,) = site.ingress.loads.own()
        os.kill(processes[serving].pid, signal.SIGKILL)
        text = await response.read()
    assert b"error" not in text
    assert text.count(b'"finish_reason":"length"') == 1
    assert text.endswith(b"data: [DONE]\n\n")
    assert site.sample("tokens_total", token_type="output") == 60
    for _ in range(5):
        status, _ = await site.post("/v1/completions", prompt="x", max_tokens=2)
        assert status == 200
    assert site.ingress.loads.own() == {}
