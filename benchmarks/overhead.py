"""Benchmark: what the ingress costs, beside the engine alone and a bare Starlette + aiohttp proxy."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import uvloop
from load import Result, closed_loop, open_loop
from report import Report

import hekla

HERE = Path(__file__).parent
CONCURRENCIES = (1, 16, 64)
CHUNKS = 50
MODEL = "bench"
MANIFEST: dict[str, Any] = {
    "apiVersion": "workload.serving.volcano.sh/v1alpha1",
    "kind": "ModelBooster",
    "metadata": {"name": MODEL},
    "spec": {
        "name": MODEL,
        "backend": {
            "name": "engine",
            "type": "Simulated",
            "modelURI": "hf://bench/bench",
            "replicas": 1,
            "workers": [
                {
                    "type": "server",
                    "replicas": 1,
                    "pods": 1,
                    "resources": {"requests": {"cpu": "100m"}},
                    "config": {"time-scale": "0"},
                }
            ],
        },
    },
}


def body(stream: bool) -> bytes:
    request: dict[str, Any] = {"model": MODEL, "prompt": "What is the capital of France?", "max_tokens": 1}
    if stream:
        request |= {"stream": True, "max_tokens": CHUNKS, "ignore_eos": True}
    return json.dumps(request).encode()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def bare_proxy(engine: str) -> Iterator[tuple[str, list[int]]]:
    """A minimal Starlette + aiohttp proxy in one process, as one would write it on a Friday."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(HERE / "baseline_proxy.py"), engine, str(port)])
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_answers(f"{url}/health")
        yield url, [process.pid]
    finally:
        process.terminate()
        process.wait(timeout=10)


@contextlib.contextmanager
def hekla_up(data_plane: str, replicas: int) -> Iterator[tuple[str, str, list[int]]]:
    """A platform of its own with one simulated engine: (endpoint, engine address, pids of the data path)."""
    with tempfile.TemporaryDirectory(prefix="hekla-bench-") as home:
        port = free_port()
        up = ["up", "--home", home, "--port", str(port), "--data-plane", data_plane, "--no-dashboard",
              "--ingress-replicas", str(replicas), "--access-log", "off"]  # fmt: skip
        try:
            run_hekla(*up)
            client = hekla.Client(f"http://127.0.0.1:{port}")
            client.apply([MANIFEST])
            client.wait_ready("ModelBooster", MODEL, timeout_s=120)
            engine = str(client.list("Engine")[0]["status"]["address"])
            wait_until_answers(f"{client.base_url}/health")
            yield client.base_url, engine, data_path_pids(home)
        finally:
            run_hekla("down", "--home", home)


def run_hekla(*arguments: str) -> None:
    environment = dict(os.environ, RAY_ADDRESS="")
    subprocess.run(
        [sys.executable, "-m", "hekla.platform.cli", *arguments], check=True, stdout=sys.stderr, env=environment
    )


def data_path_pids(home: str) -> list[int]:
    """Processes that carry requests: ingress replicas and HAProxy."""
    cluster_id = json.loads((Path(home) / "cluster.json").read_text())["cluster_id"]
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.info["cmdline"] or ())
            if ("ServeReplica" in line or "haproxy" in line.split(" ")[0]) and (
                process.environ().get("HEKLA_CLUSTER") == cluster_id
            ):
                found.append(process.info["pid"])
    return found


def wait_until_answers(url: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=2).status_code == 200:
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{url} does not answer")
        time.sleep(0.05)


def pss_mib(pids: list[int]) -> float:
    """Memory of the processes, shared pages counted once among their sharers."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids) / 2**20


def measure(report: Report, setups: dict[str, str], stream: bool, seconds: float) -> dict[tuple[str, int], Result]:
    """Every set-up at every concurrency, set-ups side by side within each concurrency."""
    found = {}
    for concurrency in CONCURRENCIES:
        for name, url in setups.items():
            target = f"{url}/v1/completions"
            uvloop.run(closed_loop(target, body(stream), concurrency, seconds / 4))
            result = uvloop.run(closed_loop(target, body(stream), concurrency, seconds))
            found[name, concurrency] = result
            report.add(
                setup=name, stream=stream, concurrency=concurrency, requests_per_s=round(result.requests_per_s, 1),
                chunks_per_s=round(result.chunks_per_s, 1), p50_ms=round(result.percentile_ms(0.5), 3),
                p99_ms=round(result.percentile_ms(0.99), 3), errors=result.errors,
            )  # fmt: skip
    return found


def added_at_half_rate(report: Report, setups: dict[str, str], ingress: str, rate: float, seconds: float) -> float:
    """(ingress p50 - direct p50) / (bare proxy p50 - direct p50), all at `rate` requests a second."""
    p50: dict[str, list[float]] = {name: [] for name in ("direct", "bare proxy", ingress)}
    for _ in range(3):
        for name, found in p50.items():
            result = asyncio.run(open_loop(f"{setups[name]}/v1/completions", body(False), rate, seconds))
            found.append(result.percentile_ms(0.5))
            report.add(setup=name, open_loop_rate=round(rate, 1), p50_ms=round(found[-1], 3),
                       p99_ms=round(result.percentile_ms(0.99), 3), errors=result.errors)  # fmt: skip
    middle = {name: sorted(values)[1] for name, values in p50.items()}
    return (middle[ingress] - middle["direct"]) / max(1e-6, middle["bare proxy"] - middle["direct"])


def compare(report: Report, data_plane: str, replicas: int, seconds: float) -> None:
    report.say(f"data plane {data_plane}, {replicas} ingress replica(s)")
    name = f"ingress ({data_plane})"
    with hekla_up(data_plane, replicas) as (endpoint, engine, pids), bare_proxy(engine) as (proxy, proxy_pids):
        setups = {"direct": engine, "bare proxy": proxy, name: endpoint}
        unary = measure(report, setups, False, seconds)
        streamed = measure(report, setups, True, seconds)
        claim = f"{name}, {replicas} replica(s)"
        report.at_least(f"{claim}: requests/s at concurrency 16, share of the bare proxy's",
                        unary[name, 16].requests_per_s / unary["bare proxy", 16].requests_per_s, 0.5)  # fmt: skip
        report.at_least(f"{claim}: streamed chunks/s at concurrency 16, share of the bare proxy's",
                        streamed[name, 16].chunks_per_s / streamed["bare proxy", 16].chunks_per_s, 0.6)  # fmt: skip
        rate = max(unary[name, concurrency].requests_per_s for concurrency in CONCURRENCIES) / 2
        report.at_most(f"{claim}: what it adds at p50 at half its maximum rate, times what the bare proxy adds",
                       added_at_half_rate(report, setups, name, rate, seconds), 2.0)  # fmt: skip
        report.add(setup=name, data_path_pss_mib=round(pss_mib(pids), 1), processes=len(pids))
        report.add(setup="bare proxy", data_path_pss_mib=round(pss_mib(proxy_pids), 1), processes=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each measurement")
    parser.add_argument("--data-plane", choices=["direct", "haproxy", "both"], default="both")
    parser.add_argument("--replicas", type=int, default=1, help="ingress replicas; the bare proxy is one process")
    options = parser.parse_args()
    report = Report("overhead")
    for data_plane in ("direct", "haproxy") if options.data_plane == "both" else (options.data_plane,):
        compare(report, data_plane, options.replicas, options.seconds)
    report.finish(options.json)


if __name__ == "__main__":
    main()
