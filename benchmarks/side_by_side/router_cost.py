"""What a router itself costs: added latency on an idle engine, and requests for each second of processor time.

Against one simulated engine that answers at once, so that nothing of an engine's speed is in the figures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import uvloop
from load import Result, closed_loop
from report import Report

from side_by_side.arms import Arm
from side_by_side.fleet import SERVED_NAME, fleet_of
from side_by_side.routers import router
from side_by_side.workload import SHAPES, prompts

ROUNDS = 3
BUSY_CONCURRENCY = 16


def bodies() -> dict[str, bytes]:
    """A question of a line, and one with a system prompt of a thousand tokens; both for one token of answer."""
    short = {"model": SERVED_NAME, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
    (long, *_) = prompts(SHAPES["a"], seed=0)
    asked = {"short": short, "1k tokens": {"model": SERVED_NAME, "messages": long.messages()}}
    return {name: json.dumps({**body, "max_tokens": 1}).encode() for name, body in asked.items()}


def router_cost(report: Report, arms: Sequence[Arm], *, seconds: float, cache: Path, logs: Path) -> None:
    """One row per arm and prompt; added latency is the middle of three differences between medians."""
    with fleet_of("simulated", 1, threads=1, logs=logs, extra=("--time-scale", "0")) as fleet:
        direct = f"{fleet.engines[0].url}/v1/chat/completions"
        for arm in arms:
            with router(arm, fleet, cache=cache, logs=logs) as (url, process):
                assert process is not None, f"{arm.name} has no process of its own"
                target = f"{url}/v1/chat/completions"
                for name, body in bodies().items():
                    _loop(target, body, 4, seconds / 2)
                    added = sorted(_added_ms(direct, target, body, seconds / 2) for _ in range(ROUNDS))
                    before = process.cpu_s()
                    busy = _loop(target, body, BUSY_CONCURRENCY, seconds)
                    cpu_s = process.cpu_s() - before
                    report.add(
                        router=arm.name, prompt=name, added_p50_ms=round(added[ROUNDS // 2], 3),
                        requests_per_s=round(busy.requests_per_s, 1), cores_used=round(cpu_s / busy.seconds, 3),
                        requests_per_core_s=round(busy.requests / cpu_s, 1) if cpu_s else 0.0, errors=busy.errors,
                    )  # fmt: skip


def _added_ms(direct: str, target: str, body: bytes, seconds: float) -> float:
    return _loop(target, body, 1, seconds).percentile_ms(0.5) - _loop(direct, body, 1, seconds).percentile_ms(0.5)


def _loop(url: str, body: bytes, concurrency: int, seconds: float) -> Result:
    return uvloop.run(closed_loop(url, body, concurrency, seconds))
