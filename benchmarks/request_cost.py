"""Benchmark: CPU time the ingress spends on one request and on one streamed chunk, without the machine's other work.

    python benchmarks/request_cost.py --json

The ingress's ASGI application is driven in this process, by clients without sockets, in front of one simulated engine
in another process that takes no time to think. What is counted is the CPU time of this process's one thread, so what
else runs on the machine counts little; rounds alternate, and the cheapest of each kind is told. `--profile` adds
where the time goes, by module.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import dataclasses
import json
import pstats
import subprocess
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import httpx
import uvloop

sys.path.append(str(Path(__file__).resolve().parent.parent))
sys.path.append(str(Path(__file__).resolve().parent))

from overhead import CHUNKS, MODEL, body, free_port, wait_until_answers
from report import Report

from hekla.platform.base.clock import SystemClock
from hekla.platform.base.ids import SeededIds
from hekla.routing.app import Ingress, build_ingress
from hekla.routing.config import AccessLogSettings, GossipSettings, RoutingSettings
from hekla.routing.source import FakeObjectSource

PROMPT_CHARS = 8_000
"""Of the long prompt: 2,000 tokens."""
PATH = "/v1/completions"


class MemoryClient:
    """One request without a socket: what the server would hand to the application."""

    def __init__(self, data: bytes) -> None:
        self._data, self._left = data, asyncio.get_running_loop().create_future()
        self._is_read = False
        self.status = self.bytes = 0

    def scope(self) -> dict[str, Any]:
        headers = [
            (b"host", b"bench"), (b"content-type", b"application/json"), (b"accept", b"*/*"),
            (b"user-agent", b"bench/1"), (b"content-length", str(len(self._data)).encode()),
        ]  # fmt: skip
        return {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": PATH, "raw_path": PATH.encode(), "query_string": b"", "headers": headers,
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        }  # fmt: skip

    async def receive(self) -> dict[str, Any]:
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": self._data, "more_body": False}
        await self._left
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.bytes += len(message["body"])


async def requests(ingress: Ingress, bodies: list[bytes], concurrency: int) -> float:
    """CPU seconds of this thread per request."""
    waiting = iter(bodies)

    async def client() -> None:
        for data in waiting:
            one = MemoryClient(data)
            await ingress.app(one.scope(), one.receive, one.send)
            if one.status != 200 or not one.bytes:
                raise RuntimeError(f"answered {one.status}")

    start = time.thread_time()
    await asyncio.gather(*(client() for _ in range(concurrency)))
    return (time.thread_time() - start) / len(bodies)


def workloads(count: int) -> dict[str, list[bytes]]:
    long = json.loads(body(False))
    text = "All work and no play makes a dull day. " * (PROMPT_CHARS // 39)
    return {
        "plain": [body(False)] * count,
        "stream": [body(True)] * (count // 5),
        "long prompt": [json.dumps({**long, "prompt": f"{i % 16} {text}"}).encode() for i in range(count)],
    }


def objects(url: str, events: str) -> list[dict[str, Any]]:
    serving, selector = "networking.serving.volcano.sh/v1alpha1", {"matchLabels": {"app": "m"}}
    status: dict[str, Any] = {"phase": "Ready", "address": url, "models": [MODEL]}
    if events:
        status["kvEvents"] = events
    return [
        {"apiVersion": "hekla.io/v1alpha1", "kind": "Engine",
         "metadata": {"name": "e", "namespace": "default", "labels": {"app": "m"}},
         "spec": {"serving": "m", "group": 0, "role": "server", "roleReplica": 0, "index": 0}, "status": status},
        {"apiVersion": serving, "kind": "ModelServer", "metadata": {"name": "s", "namespace": "default"},
         "spec": {"model": MODEL, "inferenceEngine": "vLLM", "workloadSelector": selector,
                  "workloadPort": {"port": 8000, "protocol": "http"}}},
        {"apiVersion": serving, "kind": "ModelRoute", "metadata": {"name": "r", "namespace": "default"},
         "spec": {"modelName": MODEL, "rules": [{"name": "all", "targetModels": [{"modelServerName": "s"}]}]}},
    ]  # fmt: skip


async def ingress_for(url: str, events: str) -> Ingress:
    settings = dataclasses.replace(
        RoutingSettings(), access_log=AccessLogSettings(enabled=False), gossip=GossipSettings(host="127.0.0.1")
    )
    ingress = build_ingress(settings, FakeObjectSource(*objects(url, events)), clock=SystemClock(), ids=SeededIds(1))
    await ingress.start()
    while not (ingress.keeper.synced and ingress.keeper.table.servers):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return ingress


async def measure(url: str, options: argparse.Namespace) -> dict[str, float]:
    """The cheapest round of each workload: CPU seconds per request."""
    ingress = await ingress_for(url, options.events)
    loads, best = workloads(options.requests), dict[str, float]()
    for bodies in loads.values():
        await requests(ingress, bodies, options.concurrency)
    profile = cProfile.Profile()
    for _ in range(options.rounds):
        for name, bodies in loads.items():
            if options.profile == name:
                profile.enable()
            best[name] = min(best.get(name, 1e9), await requests(ingress, bodies, options.concurrency))
            profile.disable()
    if options.profile:
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(options.lines)
    await ingress.stop()
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    parser.add_argument("--requests", type=int, default=600, help="requests a round; of streams a fifth of them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--profile", default="", help="of which workload to tell where the time goes")
    parser.add_argument("--lines", type=int, default=60)
    parser.add_argument("--no-events", action="store_true", help="an engine without KV events")
    options = parser.parse_args()
    report = Report("request_cost")
    port, events, replay = free_port(), free_port(), free_port()
    options.events = "" if options.no_events else f"tcp://127.0.0.1:{events}"
    config = {"enable_kv_cache_events": not options.no_events, "publisher": "zmq", "endpoint": f"tcp://*:{events}",
              "replay_endpoint": f"tcp://*:{replay}"}  # fmt: skip
    engine = subprocess.Popen(
        [sys.executable, "-m", "hekla.deployments.simengine", "--model", MODEL, "--host", "127.0.0.1", "--port",
         str(port), "--time-scale", "0", "--kv-events-config", json.dumps(config)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_answers(f"{url}/health")
        best = uvloop.run(measure(url, options))
        answer = httpx.post(f"{url}{PATH}", content=body(True)).text
        chunks = answer.count("\n\n")
    finally:
        engine.terminate()
        engine.wait(timeout=10)
    for name, seconds in best.items():
        report.add(workload=name, cpu_us_per_request=seconds * 1e6)
    report.add(workload="stream", events=chunks, cpu_us_per_chunk=(best["stream"] - best["plain"]) * 1e6 / CHUNKS)
    report.finish(options.json)


if __name__ == "__main__":
    main()
