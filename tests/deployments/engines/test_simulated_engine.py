"""The simulated engine under the real supervisor: one more engine, with vLLM's flags."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import aiohttp

from hekla.deployments.engines.node import NodeFacts
from hekla.deployments.supervisor import EngineSupervisor

DEADLINE_S = 90.0
EVENTS = '{"enable_kv_cache_events": true, "publisher": "zmq", "endpoint": "tcp://*:5557"}'


async def test_a_simulated_engine_serves_drains_and_stops(tmp_path: Path) -> None:
    node = NodeFacts(cache_dir=tmp_path, log_dir=tmp_path / "logs", run_dir=tmp_path / "run", environ=dict(os.environ))
    launch = {
        "name": "sim", "engine": "Simulated", "modelUri": "hf://org/name",
        "args": ["--max-model-len", "4096", "--kv-events-config", EVENTS],
    }  # fmt: skip
    supervisor = EngineSupervisor(launch, node)
    await supervisor.start()
    try:
        report = await supervisor.report(0, 0)
        async with asyncio.timeout(DEADLINE_S):
            while report["phase"] not in ("Ready", "Failed"):
                report = await supervisor.report(report["version"], 5.0)
        assert report["phase"] == "Ready", report["message"]
        assert report["models"] == ["org/name"]
        assert report["maxModelLen"] == 4096
        assert report["kvEvents"].startswith("tcp://127.0.0.1:")
        body = {"model": "org/name", "max_tokens": 4, "messages": [{"role": "user", "content": "hello"}]}
        async with aiohttp.ClientSession() as session:
            answer = await session.post(f"{report['address']}/v1/chat/completions", json=body)
            assert answer.status == 200, await answer.text()
        await asyncio.wait_for(supervisor.drain(20.0), DEADLINE_S)
        assert (await supervisor.report(0, 0))["phase"] == "Stopped"
    finally:
        await supervisor.stop()
