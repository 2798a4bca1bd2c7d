"""From runs to the table and the claims. Pure: what is compared, and what counts as better."""

from __future__ import annotations

from collections.abc import Sequence

from report import Report

from side_by_side.arms import ARMS, DEFAULT, ORACLE, RANDOM
from side_by_side.results import Run, mean_of, ratio

THROUGHPUT_SHARE = 0.9
TTFT_TIMES = 1.15
NOISE_MAX = 0.1
"""However wide three seeds scatter, a tenth less than random is a loss."""
MEASURES = ("requests_per_s", "output_tokens_per_s", "ttft_mean_s", "ttft_p50_s", "ttft_p90_s", "ttft_p99_s",
            "hit_rate", "router_cpu_s", "others_cpu_share")  # fmt: skip


def tell(report: Report, runs: Sequence[Run], workloads: Sequence[str]) -> None:
    """Every arm's means over its seeds, then the claims that these runs can carry."""
    for workload in workloads:
        for arm in ARMS:
            if any(run.workload == workload and run.arm == arm for run in runs):
                report.add(**_row(runs, workload, arm))
    for workload in workloads:
        if workload == "c":
            _no_worse_than_random(report, runs, workload)
        else:
            _near_the_oracle(report, runs, workload)
            _better_than_the_rust_routers(report, runs, workload)
    report.at_most("requests without a whole answer, all runs", sum(run.errors for run in runs), 0)


def _row(runs: Sequence[Run], workload: str, arm: str) -> dict[str, object]:
    mine = [run for run in runs if run.workload == workload and run.arm == arm]
    row: dict[str, object] = {"workload": workload, "arm": arm, "seeds": len(mine)}
    row |= {measure: round(mean_of(runs, workload, arm, measure), 4) for measure in MEASURES}
    for measure in ("requests_per_s", "ttft_mean_s"):
        against = ratio(runs, workload, arm, ORACLE, measure)
        if against is not None:
            row[f"{measure}_of_oracle"] = f"{against.mean:.3f}±{against.error:.3f}"
    return row | {"errors": sum(run.errors for run in mine)}


def _near_the_oracle(report: Report, runs: Sequence[Run], workload: str) -> None:
    throughput = ratio(runs, workload, DEFAULT, ORACLE, "requests_per_s")
    wait = ratio(runs, workload, DEFAULT, ORACLE, "ttft_mean_s")
    if throughput is None or wait is None:
        return
    report.at_least(f"({workload}) throughput, share of the oracle's", throughput.mean, THROUGHPUT_SHARE)
    report.at_most(f"({workload}) mean time to first token, times the oracle's", wait.mean, TTFT_TIMES)


def _better_than_the_rust_routers(report: Report, runs: Sequence[Run], workload: str) -> None:
    """Each measure against whichever published router is best at it."""
    theirs = [name for name, arm in ARMS.items() if arm.kind == "rust"]
    for measure, better, what in (
        ("requests_per_s", max, "throughput"),
        ("ttft_p90_s", min, "p90 time to first token"),
    ):
        against = [(found.mean, name) for name in theirs if (found := ratio(runs, workload, DEFAULT, name, measure))]
        if not against:
            continue
        # Throughput over theirs is smallest, and waiting over theirs largest, against the best of them.
        closest, name = (min if better is max else max)(against)
        claim = f"({workload}) {what}, times that of the best published router, {name}"
        (report.at_least if better is max else report.at_most)(claim, closest, 1.0)


def _no_worse_than_random(report: Report, runs: Sequence[Run], workload: str) -> None:
    throughput = ratio(runs, workload, DEFAULT, RANDOM, "requests_per_s")
    wait = ratio(runs, workload, DEFAULT, RANDOM, "ttft_mean_s")
    if throughput is None or wait is None:
        return
    noise = min(NOISE_MAX, 2 * throughput.error)
    claim = f"({workload}) throughput, share of random's; noise is two standard errors"
    report.at_least(claim, throughput.mean, round(1 - noise, 4))
    noise = min(NOISE_MAX, 2 * wait.error)
    report.at_most(
        f"({workload}) mean time to first token, times random's; noise likewise", wait.mean, round(1 + noise, 4)
    )
