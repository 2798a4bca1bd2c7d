"""One run: a fresh router, empty caches, the requests of one workload and seed."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from side_by_side.arms import Arm, engine_by_hand
from side_by_side.fleet import SERVED_NAME, Fleet, samples_of
from side_by_side.results import Run, percentile
from side_by_side.routers import router
from side_by_side.workload import Prompt, Shape

TOLD = {
    ("hekla_router_tokenised_prompts_total", "late"): "prompts_tokenised_late",
    ("hekla_router_tokenised_prompts_total", "local"): "prompts_tokenised",
    ("hekla_router_tokenised_prompts_total", "engine"): "prompts_tokenised",
    ("hekla_router_prefix_precision_sum", ""): "precision_sum",
    ("hekla_router_prefix_precision_count", ""): "precision_count",
    ("hekla_router_forecast_error_ratio", "ttft"): "ttft_forecast_error",
}
"""Of hekla's own metrics, by name and one label's value: they tell a poor choice from poor knowledge."""
CLIENT = Path(__file__).parent / "client.py"
CLIENT_DEADLINE_S = 1800


def one_run(arm: Arm, shape: Shape, seed: int, prompts: list[Prompt], fleet: Fleet, *, cache: Path, logs: Path) -> Run:
    """Raises Failed when the router does not come up or the engines' caches can't be emptied."""
    with router(arm, fleet, cache=cache, logs=logs) as (url, process):
        # After the router's first request, so that it begins with empty engines and knows that they are.
        fleet.forget_prefixes()
        requests = [
            {
                "url": f"{url or fleet.engines[_by_hand(arm, prompt, number, fleet)].url}/v1/chat/completions",
                "body": json.dumps(prompt.body(SERVED_NAME, shape.output_tokens)),
                "group": prompt.group,
            }
            for number, prompt in enumerate(prompts)
        ]
        counted, engines_cpu = fleet.counters(), fleet.cpu_s()
        router_cpu = process.cpu_s() if process else 0.0
        machine, client_cpu, began = psutil.cpu_times(), _children_cpu(), time.monotonic()
        told = _send(requests, shape.concurrency)
        spent = {
            "router_cpu_s": round(process.cpu_s() - router_cpu, 3) if process else 0.0,
            "engines_cpu_s": round(fleet.cpu_s() - engines_cpu, 3),
        }
        ours = sum(spent.values()) + _children_cpu() - client_cpu
        others = max(0.0, _busy(psutil.cpu_times()) - _busy(machine) - ours)
        available = (psutil.cpu_count() or 1) * (time.monotonic() - began)
        return _run_of(
            (shape.name, seed, arm.name), told, _growth(counted, fleet.counters()),
            {**spent, "others_cpu_share": round(others / available, 3)}, _told_by(arm, url),
        )  # fmt: skip


def _told_by(arm: Arm, url: str) -> dict[str, float]:
    if arm.kind != "hekla":
        return {}
    found: dict[str, float] = {}
    for name, labels, value in samples_of(httpx.get(f"{url}/metrics", timeout=30).text):
        for (wanted, label), title in TOLD.items():
            if name == wanted and (not label or label in labels.values()):
                found[title] = round(found.get(title, 0.0) + value, 3)
    return found


def _by_hand(arm: Arm, prompt: Prompt, number: int, fleet: Fleet) -> int:
    return engine_by_hand(arm.policy, prompt.group, number, len(fleet.engines))


def _send(requests: list[dict[str, Any]], concurrency: int) -> dict[str, Any]:
    plan = json.dumps({"concurrency": concurrency, "requests": requests}).encode()
    command = [sys.executable, "-P", str(CLIENT)]
    done = subprocess.run(command, input=plan, stdout=subprocess.PIPE, check=True, timeout=CLIENT_DEADLINE_S)
    return dict(json.loads(done.stdout))


def _children_cpu() -> float:
    times = psutil.Process().cpu_times()
    return times.user + times.system + times.children_user + times.children_system


def _busy(times: Any) -> float:
    return float(sum(times[:8]) - times.idle - times.iowait)


def _growth(before: list[dict[str, float]], after: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: late[name] - early[name] for name in late} for early, late in zip(before, after, strict=True)]


def _run_of(
    key: tuple[str, int, str],
    told: dict[str, Any],
    engines: list[dict[str, float]],
    spent: dict[str, float],
    said: dict[str, float],
) -> Run:
    records, seconds = told["records"], told["seconds"]
    answered = [record for record in records if not record["error"]]
    failed = [record for record in records if record["error"]]
    waits = [record["first_s"] - record["sent_s"] for record in answered]
    return Run(
        *key,
        seconds=round(seconds, 3),
        requests=len(answered),
        errors=len(failed),
        output_tokens_per_s=round(sum(record["output_tokens"] for record in answered) / seconds, 3),
        requests_per_s=round(len(answered) / seconds, 4),
        ttft_mean_s=round(statistics.fmean(waits), 4) if waits else float("nan"),
        ttft_p50_s=round(percentile(waits, 0.5), 4),
        ttft_p90_s=round(percentile(waits, 0.9), 4),
        ttft_p99_s=round(percentile(waits, 0.99), 4),
        hit_rate=_rate(sum(e["hit_tokens"] for e in engines), sum(e["queried_tokens"] for e in engines)),
        requests_by_engine=[int(engine["requests"]) for engine in engines],
        hit_rate_by_engine=[_rate(engine["hit_tokens"], engine["queried_tokens"]) for engine in engines],
        preemptions=int(sum(engine["preemptions"] for engine in engines)),
        prompt_tokens_mean=round(statistics.fmean(r["prompt_tokens"] for r in answered), 1) if answered else 0.0,
        told=said,
        first_error=failed[0]["error"] if failed else "",
        **spent,
    )


def _rate(hits: float, queries: float) -> float:
    return round(hits / queries, 4) if queries else 0.0
