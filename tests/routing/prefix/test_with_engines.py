"""The whole way: simulated engines in processes of their own, their KV events, and an ingress over real sockets."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio

from hekla.routing.config import RoutingSettings
from hekla.routing.prefix.settings import PrefixSettings, TokeniserSettings

SETTINGS = RoutingSettings(prefix=PrefixSettings(tokeniser=TokeniserSettings(deadline_s=30)))


@dataclass
class Engine:
    url: str
    events: str
    process: subprocess.Popen[bytes]


@pytest_asyncio.fixture
async def engines(free_port: Callable[[], int], tmp_path: Path) -> AsyncIterator[list[Engine]]:
    started = []
    for number in range(2):
        port, events = free_port(), f"ipc://{tmp_path}/events{number}"
        config = {
            "enable_kv_cache_events": True,
            "endpoint": events,
            "replay_endpoint": f"ipc://{tmp_path}/replay{number}",
        }
        command = [sys.executable, "-m", "hekla.deployments.simengine", "--model", "served-m", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--time-scale", "0", "--kv-events-config", json.dumps(config)]
        command += ["--enable-prompt-tokens-details"]
        started.append(Engine(f"http://127.0.0.1:{port}", events, subprocess.Popen(command)))  # noqa: ASYNC220  # it returns at once
    async with httpx.AsyncClient() as client:
        for engine in started:
            for _ in range(1500):
                try:
                    await client.get(f"{engine.url}/health")
                    break
                except httpx.TransportError:
                    assert engine.process.poll() is None
                    await asyncio.sleep(0.02)
    yield started
    for engine in started:
        engine.process.kill()
        engine.process.wait()


def chat(system: str, question: str) -> dict[str, Any]:
    return {
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": question}],
        "max_tokens": 4, "temperature": 0,
    }  # fmt: skip


async def test_a_conversation_goes_where_the_engine_says_that_its_beginning_is_cached(
    engines: list[Engine], kit: Any, start_site: Any
) -> None:
    objects = [kit.model_route(), kit.model_server()]
    for number, engine in enumerate(engines):
        made = kit.engine(f"e{number}", engine.url)
        made["status"]["kvEvents"] = engine.events
        objects.append(made)
    # What it served before the ingress came is known too: the second engine has the first conversation.
    systems = [f"You answer questions about place number {n}. " * 40 for n in range(4)]
    async with httpx.AsyncClient() as client:
        first = {"model": "served-m", **chat(systems[0], "Where is it?")}
        assert (await client.post(f"{engines[1].url}/v1/chat/completions", json=first)).status_code == 200
    site = await start_site(*objects, settings=SETTINGS)
    await kit.until(lambda: site.sample("kv_event_engines") == 2, "both engines are followed")
    await kit.until(lambda: site.sample("prefix_entries", index="exact") > 0, "the past is known")
    for turn in range(3):
        for system in systems:
            status, answer = await site.post(**chat(system, f"Question {turn}?"))
            assert status == 200
            cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            known = turn > 0 or system is systems[0]
            assert (cached > 0.8 * answer["usage"]["prompt_tokens"]) is known
    assert site.sample("tokenised_prompts_total", source="engine") == 12
    assert site.sample("kv_event_streams_total", outcome="lost") == 0
    site.ingress.prefix.knowledge.check()
