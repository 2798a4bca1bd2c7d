"""The benchmark that sets routers side by side, run as its user runs it, with simulated engines in vLLM's place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "routing_vllm.py"
QUICK = ("--engines", "simulated", "--engine-args=--time-scale 0.2", "--no-cost", "--workloads", "a", "--scale", "0.07")


def test_the_rehearsal_gives_the_same_figures_for_the_same_seeds() -> None:
    command = [sys.executable, str(PROGRAM.with_name("routing_rehearsal.py")), "--json", "--seeds", "1",
               "--workloads", "c", "--policies", "hekla"]  # fmt: skip
    first, second = (json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(2))
    assert first["results"] == second["results"]
    rows = {row["policy"]: row for row in first["results"]}
    assert rows["hekla"]["requests_per_s"] > rows["random"]["requests_per_s"]


def bench(tmp_path: Path, *arguments: str, fails: bool = False) -> dict[str, Any]:
    """Its JSON, or, when it `fails`, what it said."""
    command = [sys.executable, str(PROGRAM), "--json", "--logs", str(tmp_path / "logs"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert (done.returncode != 0) is fails, done.stderr
    return {"said": done.stderr} if fails else dict(json.loads(done.stdout))


def a_run(arm: str, workload: str = "a", seed: int = 1, **measured: float) -> dict[str, Any]:
    usual = {
        "seconds": 10.0, "requests": 100, "errors": 0, "output_tokens_per_s": 100.0, "requests_per_s": 10.0,
        "ttft_mean_s": 1.0, "ttft_p50_s": 1.0, "ttft_p90_s": 2.0, "ttft_p99_s": 3.0, "hit_rate": 0.5,
    }  # fmt: skip
    return {"workload": workload, "seed": seed, "arm": arm, **usual, **measured}


@pytest.fixture
def told(tmp_path: Path) -> Any:
    """`told(run, …)`: the claims that the benchmark makes of runs in its file, without running anything."""

    def tell(*runs: dict[str, Any]) -> dict[str, tuple[float, bool]]:
        file = tmp_path / "runs.jsonl"
        every_arm = sorted({run["arm"] for run in runs})
        where = {name: sorted({run[name] for run in runs}) for name in ("workload", "seed")}
        options = ["--arms", *every_arm, "--workloads", *where["workload"], "--seeds", *map(str, where["seed"])]
        setup = bench_setup(tmp_path)
        file.write_text("\n".join(map(json.dumps, [setup, *runs])) + "\n")
        found = bench(tmp_path, "--no-cost", "--resume", str(file), *options)
        return {claim["claim"]: (claim["value"], claim["holds"]) for claim in found["claims"]}

    return tell


def bench_setup(tmp_path: Path) -> dict[str, Any]:
    """The first line of a fresh file: a start with no seed makes it and runs nothing."""
    file = tmp_path / "fresh.jsonl"
    bench(tmp_path, "--no-cost", "--resume", str(file), "--seeds", "--arms", "oracle")
    return dict(json.loads(file.read_text()))


def test_arms_take_turns_and_a_second_start_only_reports(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    options = (*QUICK, "--arms", "hekla", "oracle", "hekla-random", "--seeds", "1", "--resume", str(file))
    first = bench(tmp_path, *options)
    rows = {row["arm"]: row for row in first["results"]}
    assert rows.keys() == {"hekla", "oracle", "hekla-random"}
    assert all(row["errors"] == 0 and row["requests_per_s"] > 0 for row in rows.values())
    lines = file.read_text().splitlines()
    assert len(lines) == 1 + 3
    for run in map(json.loads, lines[1:]):
        assert run["requests"] == sum(run["requests_by_engine"]) == 16, "every request, and no other, was counted"
        assert 1024 < run["prompt_tokens_mean"] < 1060, "lengths in words are lengths in tokens"
    second = bench(tmp_path, *options)
    assert file.read_text().splitlines() == lines
    assert second["results"] == first["results"]


def test_runs_of_another_set_up_are_not_mixed_in(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    bench(tmp_path, "--no-cost", "--resume", str(file), "--seeds", "--arms", "oracle")
    said = bench(
        tmp_path, "--no-cost", "--resume", str(file), "--seeds", "--arms", "oracle", "--scale", "0.5", fails=True
    )
    assert "another set-up" in said["said"]


def test_hekla_is_held_to_the_oracle_seed_by_seed(told: Any) -> None:
    claims = told(
        a_run("hekla", requests_per_s=9.5, ttft_mean_s=1.3), a_run("oracle"),
        a_run("hekla", seed=2, requests_per_s=19.0, ttft_mean_s=2.6),
        a_run("oracle", seed=2, requests_per_s=20.0, ttft_mean_s=2.0),
    )  # fmt: skip
    assert claims["(a) throughput, share of the oracle's"] == (0.95, True)
    assert claims["(a) mean time to first token, times the oracle's"] == (1.3, False)


def test_the_best_published_router_is_the_one_to_beat_at_each_measure(told: Any) -> None:
    claims = told(
        a_run("hekla", requests_per_s=11.0, ttft_p90_s=2.2), a_run("smg-cache-aware", requests_per_s=12.0),
        a_run("vllm-router-kv-aware", ttft_p90_s=4.0),
    )  # fmt: skip
    throughput = claims["(a) throughput, times that of the best published router, smg-cache-aware"]
    assert throughput == (pytest.approx(11 / 12, abs=1e-3), False)
    assert claims["(a) p90 time to first token, times that of the best published router, smg-cache-aware"] == (
        1.1,
        False,
    )


def test_where_nothing_is_shared_hekla_may_be_behind_random_by_the_noise_and_no_more(told: Any) -> None:
    def c_runs(*hekla: float) -> list[dict[str, Any]]:
        ours = [a_run("hekla", "c", seed, requests_per_s=rate) for seed, rate in enumerate(hekla, 1)]
        return [*ours, *(a_run("hekla-random", "c", run["seed"]) for run in ours)]

    name = "(c) throughput, share of random's; noise is two standard errors"
    assert told(*c_runs(9.5, 10.4, 9.9))[name][1] is True
    assert told(*c_runs(9.5, 9.51, 9.49))[name][1] is False


def test_a_request_without_a_whole_answer_loses_a_claim(told: Any) -> None:
    assert told(a_run("hekla", errors=1))["requests without a whole answer, all runs"] == (1, False)
