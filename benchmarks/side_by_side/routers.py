"""Starts a router before a fleet: the arm's own process, fresh for every run, so that no run learns from another."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from side_by_side.arms import PACKAGES, Arm
from side_by_side.fleet import BLOCK_TOKENS, SERVED_NAME, EngineAt, Fleet
from side_by_side.processes import Process, free_ports, running

HERE = Path(__file__).parent
READY_S = 90
LABELS = {"app": "bench"}
NETWORKING, HEKLA = "networking.serving.volcano.sh/v1alpha1", "hekla.io/v1alpha1"


def install(package: str, cache: Path) -> Path:
    """The program of a published router; installs its pinned wheel into an environment of its own once."""
    home = cache / PACKAGES[package]
    program = home / "bin" / package
    if not program.exists():
        uv = str(Path(sys.executable).parent / "uv")
        for command in (
            [uv, "venv", "-q", "--python", sys.executable, str(home)],
            [uv, "pip", "install", "-q", "--python", str(home / "bin" / "python"), PACKAGES[package]],
        ):
            subprocess.run(command, check=True, stdout=sys.stderr)
    return program


@contextlib.contextmanager
def router(arm: Arm, fleet: Fleet, *, cache: Path, logs: Path) -> Iterator[tuple[str, Process | None]]:
    """The base URL that answers for the arm, and its process; both empty where the client chooses by hand."""
    if arm.kind == "by hand":
        yield "", None
        return
    port, other = free_ports(2)
    command = hekla_command(arm, fleet, port) if arm.kind == "hekla" else rust_command(arm, fleet, (port, other), cache)
    url = f"http://127.0.0.1:{port}"
    with running(arm.name, command, {"RUST_LOG": "warn"}, logs) as process:
        process.wait_until(lambda: _answers(url), "answers a request", READY_S)
        yield url, process


def _answers(url: str) -> bool:
    """Only a whole answer counts: some routers are healthy before they know an engine."""
    body = {"model": SERVED_NAME, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30).status_code == 200


def hekla_command(arm: Arm, fleet: Fleet, port: int) -> list[str]:
    job = {"host": "127.0.0.1", "port": port, "settings": arm.settings, "objects": objects(fleet)}
    # -P: the folder of that program would shadow nothing today, and shall not tomorrow.
    return [sys.executable, "-P", str(HERE / "ingress_process.py"), json.dumps(job)]


def objects(fleet: Fleet) -> list[dict[str, Any]]:
    """What a platform would have in its store for this fleet."""
    route = {"modelName": SERVED_NAME, "rules": [{"name": "all", "targetModels": [{"modelServerName": "bench"}]}]}
    server = {
        "model": SERVED_NAME,
        "inferenceEngine": "vLLM",
        "workloadSelector": {"matchLabels": LABELS},
        "workloadPort": {"port": 8000, "protocol": "http"},
    }
    return [
        {"apiVersion": NETWORKING, "kind": "ModelRoute", "metadata": _named("bench"), "spec": route},
        {"apiVersion": NETWORKING, "kind": "ModelServer", "metadata": _named("bench"), "spec": server},
        *(_engine(engine, fleet) for engine in fleet.engines),
    ]


def _named(name: str) -> dict[str, Any]:
    return {"name": name, "namespace": "default", "creationTimestamp": ""}


def _engine(engine: EngineAt, fleet: Fleet) -> dict[str, Any]:
    spec = {"serving": "bench", "group": 0, "role": "server", "roleReplica": 0, "index": 0}
    status = {
        "phase": "Ready",
        "address": engine.url,
        "models": [SERVED_NAME],
        "maxModelLen": 4096,
        "kvEvents": engine.kv_events,
    }
    return {
        "apiVersion": HEKLA,
        "kind": "Engine",
        "metadata": {**_named(engine.name), "labels": LABELS},
        "spec": spec,
        "status": status,
    }


def rust_command(arm: Arm, fleet: Fleet, ports: tuple[int, int], cache: Path) -> list[str]:
    """The router's own defaults, but for what it must be told: where the engines are, and their block size."""
    program, (port, metrics_port) = str(install(arm.package, cache)), ports
    quiet = "warning" if arm.package == "vllm-router" else "warn"
    usual = [
        "--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(metrics_port), "--log-level", quiet,
        "--policy", arm.policy, "--worker-startup-check-interval", "1",
        "--worker-urls", *(engine.url for engine in fleet.engines),
    ]  # fmt: skip
    if arm.package == "vllm-router":
        return [program, *usual, *(_event_sources(fleet) if arm.policy == "kv_aware" else ())]
    tokenizer = ["--model-path", fleet.model] if fleet.model else []
    blocks = ["--backend", "vllm", "--block-size", str(BLOCK_TOKENS)] if arm.package == "smg" else []
    return [program, "launch", *usual, *blocks, *tokenizer]


def _event_sources(fleet: Fleet) -> list[str]:
    given = ["--kv-event-block-size", str(BLOCK_TOKENS), "--kv-event-model", SERVED_NAME]
    for engine in fleet.engines:
        given += ["--kv-event-source", f"{engine.url}={engine.kv_events}"]
        given += ["--kv-event-replay-source", f"{engine.url}={engine.kv_replay}"]
    return given
