"""Benchmark: routing policies on simulated fleets, with the production scheduler, in virtual time.

Every policy sees the same requests from the same seed, so runs are compared in pairs; intervals are 95 % bootstraps
over seeds. `--quick` takes about a minute, the full set about 25 on two cores. Losing cases are printed, not left out.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from multiprocessing import Pool
from pathlib import Path
from typing import Any

from report import Report
from routing_scenarios import Job, Scenario, admission_scenarios, claim_of, policies_for, run_job, scenarios, trace_file

from hekla.simulation.intervals import Interval, bootstrap, paired_gain
from hekla.simulation.records import Summary

OURS = "hekla"
BOUNDS = {"static-oracle", "infinite-cache", "known-output"}
COMPARED = {
    "ttft_mean_s": True, "ttft_p99_s": True, "tpot_p99_s": True, "e2e_mean_s": True, "throughput": False,
    "goodput": False, "good_per_s": False,
}  # fmt: skip
"""Metric: whether lower is better."""

Results = dict[tuple[str, str], list[Summary]]
"""(scenario, policy) to its runs, by seed."""


def run_all(jobs: Sequence[Job], processes: int, report: Report) -> Results:
    found: dict[tuple[str, str], dict[int, Summary]] = defaultdict(dict)
    began, done = time.monotonic(), 0
    with Pool(processes) as pool:
        for job, summary in pool.imap_unordered(run_job, jobs, chunksize=1):
            found[job.scenario.name, job.policy][job.seed] = summary
            done += 1
            if done % 50 == 0:
                report.say(f"  {done}/{len(jobs)} runs, {time.monotonic() - began:.0f} s")
    return {key: [runs[seed] for seed in sorted(runs)] for key, runs in found.items()}


def mean(runs: Iterable[Summary], metric: str) -> float:
    values = [float(getattr(run, metric)) for run in runs]
    return sum(values) / len(values)


def tell(report: Report, scenario: Scenario, results: Results) -> None:
    """One row per policy, the best of the primary metric first."""
    metric = scenario.primary
    rows = [(policy, runs) for (name, policy), runs in results.items() if name == scenario.name]
    rows.sort(key=lambda row: mean(row[1], metric), reverse=not COMPARED[metric])
    report.say(f"{scenario.name} ({scenario.note}); by {metric}")
    for policy, runs in rows:
        interval = bootstrap([float(getattr(run, metric)) for run in runs])
        report.add(
            scenario=scenario.name, policy=policy, runs=len(runs), primary=metric,
            interval=[round(interval.low, 4), round(interval.high, 4)],
            **{name: round(mean(runs, name), 4) for name in (
                "ttft_mean_s", "ttft_p99_s", "tpot_mean_s", "tpot_p99_s", "e2e_mean_s", "throughput", "goodput",
                "good_per_s", "hit", "precision", "ttft_error", "preemptions", "refused",
            )},
        )  # fmt: skip


def rivals_of(scenario: Scenario, results: Results) -> dict[str, list[Summary]]:
    return {p: runs for (name, p), runs in results.items() if name == scenario.name and p not in BOUNDS | {OURS}}


def best_rival(scenario: Scenario, results: Results, metric: str) -> tuple[str, list[Summary]]:
    lower = COMPARED[metric]
    rivals = rivals_of(scenario, results)
    name = (min if lower else max)(rivals, key=lambda policy: mean(rivals[policy], metric))
    return name, rivals[name]


def gain(ours: Sequence[Summary], theirs: Sequence[Summary], metric: str) -> Interval:
    return paired_gain(
        [float(getattr(run, metric)) for run in ours], [float(getattr(run, metric)) for run in theirs],
        lower_is_better=COMPARED[metric],
    )  # fmt: skip


def losses(report: Report, every: Sequence[Scenario], results: Results) -> None:
    """All cases in which the best rival of a metric is better than we are beyond the interval."""
    report.say("losing cases: the best rival per metric is better, and the interval does not hold 0")
    for scenario in every:
        ours = results[scenario.name, OURS]
        for metric in COMPARED:
            rival, runs = best_rival(scenario, results, metric)
            interval = gain(ours, runs, metric)
            if interval.high < 0:
                report.add(
                    losing=scenario.name, metric=metric, rival=rival, ours=round(mean(ours, metric), 4),
                    theirs=round(mean(runs, metric), 4), gain=[round(value, 4) for value in interval],
                )  # fmt: skip


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    parser.add_argument("--quick", action="store_true", help="few policies, two seeds, short runs: about a minute")
    parser.add_argument("--seeds", type=int, default=0, help="runs per policy and scenario (default: 5, quick 2)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--few", action="store_true", help="the strongest rivals only, runs in full length")
    parser.add_argument("--only", default="", help="only scenarios whose names begin so, separated by commas")
    return parser.parse_args()


def main() -> None:
    options = options_of()
    report = Report("routing_sim")
    data = Path(os.environ.get("HEKLA_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    seeds = options.seeds or (2 if options.quick else 5)
    every, queued = scenarios(data, options.quick), admission_scenarios(options.quick)
    wanted = tuple(options.only.split(","))
    chosen = [scenario for scenario in every if scenario.name.startswith(wanted)]
    queued = [scenario for scenario in queued if scenario.name.startswith(wanted)]
    jobs = [
        Job(scenario, policy, seed)
        for seed in range(1, seeds + 1)
        for scenario in (*chosen, *queued)
        for policy in policies_for(scenario, few=options.quick or options.few)
        if seed <= scenario.seeds_max
    ]
    jobs.sort(key=lambda job: -job.scenario.cost)
    report.say(f"{len(jobs)} runs; W3 is of {trace_source(data)}")
    results = run_all(jobs, options.processes, report)
    for scenario in (*chosen, *queued):
        tell(report, scenario, results)
    for claim in claim_of(chosen, queued):
        claim.judge(report, Judge(results))
    losses(report, chosen, results)
    report.finish(options.json)


def trace_source(data: Path) -> str:
    return "the real Mooncake trace" if trace_file(data).is_file() else "a likeness of the Mooncake trace"


class Judge:
    """What claims ask of the results."""

    def __init__(self, results: Results) -> None:
        self.results = results

    def runs(self, scenario: str, policy: str = OURS) -> list[Summary]:
        return self.results[scenario, policy]

    def mean(self, scenario: str, metric: str, policy: str = OURS) -> float:
        return mean(self.runs(scenario, policy), metric)

    def against_best(self, scenario: Scenario, metric: str) -> tuple[str, Interval]:
        rival, runs = best_rival(scenario, self.results, metric)
        return rival, gain(self.runs(scenario.name), runs, metric)

    def best(self, scenario: Scenario, metric: str, among: Sequence[str]) -> tuple[str, float]:
        values: dict[str, Any] = {policy: self.mean(scenario.name, metric, policy) for policy in among}
        name = (min if COMPARED.get(metric, False) else max)(values, key=lambda policy: values[policy])
        return name, values[name]


if __name__ == "__main__":
    main()
