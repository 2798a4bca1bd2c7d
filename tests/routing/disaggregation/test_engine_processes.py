"""Every hand-over between two simulated engines in processes of their own, through a real ingress."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

PD_GROUP = {"groupKey": "g", "prefillLabels": {"role": "p"}, "decodeLabels": {"role": "d"}}
PROMPT = "tell me of volcanoes " * 80


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
async def start_engine() -> AsyncIterator[Any]:
    """A simulated engine in a process of its own; gives its URL."""
    processes: list[asyncio.subprocess.Process] = []

    async def start(*arguments: str) -> str:
        port = free_port()
        command = ["-m", "hekla.deployments.simengine", "served-m", "--host", "127.0.0.1", "--port", str(port)]
        fast = ["--time-scale", "0.1", "--kv-side-channel-port", "0"]
        process = await asyncio.create_subprocess_exec(sys.executable, *command, *fast, *arguments)
        processes.append(process)
        async with aiohttp.ClientSession() as session, asyncio.timeout(60):
            while True:
                try:
                    async with session.get(f"http://127.0.0.1:{port}/health") as response:
                        assert response.status == 200
                        return f"http://127.0.0.1:{port}"
                except aiohttp.ClientError:
                    assert process.returncode is None, "the engine ended"
                    await asyncio.sleep(0.05)

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.wait()


def vllm(connector: str) -> list[str]:
    return ["--kv-transfer-config", json.dumps({"kv_connector": connector, "kv_role": "kv_both"})]


@pytest.fixture
def start_pair(start_engine: Any, start_site: Any, kit: Any) -> Any:
    """A site over a prefill and a decode engine that speak as `kind` does; and their URLs."""

    async def start(kind: str) -> Any:
        port = free_port()
        at = ["--disaggregation-bootstrap-port", str(port)]
        if kind == "sglang":
            flags = [["--disaggregation-mode", "prefill", *at], ["--disaggregation-mode", "decode"]]
            server = kit.model_server(inferenceEngine="SGLang", workloadSelector=selector())
        else:
            config = vllm({"nixl": "NixlConnector", "mooncake": "MooncakeConnector"}[kind])
            flags = [[*config, *at], [*config, "--disaggregation-bootstrap-port", str(free_port())]]
            server = kit.model_server(workloadSelector=selector(), kvConnector={"type": kind})
        urls = await asyncio.gather(*(start_engine(*each) for each in flags))
        engines = [kit.engine(f"{role}0", url, app="m", g="0", role=role) for role, url in zip("pd", urls, strict=True)]
        engines[0]["status"]["bootstrapPort"] = port
        return await start_site(kit.model_route(), server, *engines), *urls

    return start


def selector() -> Any:
    return {"matchLabels": {"app": "m"}, "pdGroup": PD_GROUP}


async def metric(url: str, name: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
        lines = (await response.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((name + "{", name + " ")))


@pytest.mark.parametrize("kind", ["nixl", "mooncake", "sglang"])
async def test_a_prompt_is_computed_once_and_handed_over(kind: str, start_pair: Any) -> None:
    site, prefill, decode = await start_pair(kind)
    for _ in range(2):
        status, body = await site.post("/v1/completions", prompt=PROMPT, max_tokens=8, temperature=0, ignore_eos=True)
        assert (status, body["usage"]["completion_tokens"]) == (200, 8), body
        if kind != "sglang":
            break  # the second finds the prompt in the decode engine's cache, and stays there
    prompt_tokens = body["usage"]["prompt_tokens"]
    assert prompt_tokens > 200
    assert await metric(prefill, "vllm:request_success_total") >= 1
    assert await metric(decode, "vllm:external_prefix_cache_hits_total") >= 0.9 * prompt_tokens
    assert await metric(decode, "vllm:nixl_num_failed_transfers_total") == 0
    assert site.sample("prefill_decisions_total", way="remote") >= 1
    streamed = await site.stream("/v1/completions", prompt=PROMPT + "and seas", max_tokens=4, ignore_eos=True)
    assert streamed.endswith(b"data: [DONE]\n\n")
    assert b"error" not in streamed


async def test_a_short_prompt_and_a_known_one_stay_on_the_decode_engine(start_pair: Any) -> None:
    site, prefill, _ = await start_pair("nixl")
    assert (await site.post("/v1/completions", prompt="x", max_tokens=2))[0] == 200
    assert await metric(prefill, "vllm:request_success_total") == 0
    for _ in range(2):
        assert (await site.post("/v1/completions", prompt=PROMPT, max_tokens=2))[0] == 200
    assert await metric(prefill, "vllm:request_success_total") == 1
    assert site.sample("prefill_decisions_total", way="local", reason="short") == 1
    assert site.sample("prefill_decisions_total", way="local", reason="cached") == 1


@pytest.mark.parametrize("mode", ["prefill", "decode"])
async def test_an_sglang_engine_refuses_a_request_without_a_room(mode: str, start_engine: Any) -> None:
    url = await start_engine("--disaggregation-mode", mode, "--disaggregation-bootstrap-port", str(free_port()))
    body = {"model": "served-m", "prompt": "x"}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/completions", json=body) as response:
        assert response.status == 400
        assert "bootstrap_room" in await response.text()


async def test_a_mooncake_engine_keeps_nothing_for_a_request_without_a_transfer_id(start_engine: Any) -> None:
    """As vLLM's does, to which the peer sends none: see `routing/connectors/mooncake.py`."""
    url = await start_engine(*vllm("MooncakeConnector"), "--disaggregation-bootstrap-port", str(free_port()))
    body = {"model": "served-m", "prompt": "x", "max_tokens": 1, "kv_transfer_params": {"do_remote_decode": True}}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/completions", json=body) as response:
        assert (await response.json())["kv_transfer_params"] is None
