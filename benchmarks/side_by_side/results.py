"""One line of JSON per run in a file that the next start goes on from; figures over the runs. Pure but for the file."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """What one arm did with one workload's requests of one seed. Times in seconds."""

    workload: str
    seed: int
    arm: str
    seconds: float
    requests: int
    errors: int
    output_tokens_per_s: float
    requests_per_s: float
    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p90_s: float
    ttft_p99_s: float
    hit_rate: float
    """Prompt tokens that engines took from their caches, of all."""
    requests_by_engine: list[int] = field(default_factory=list)
    hit_rate_by_engine: list[float] = field(default_factory=list)
    preemptions: int = 0
    prompt_tokens_mean: float = 0.0
    router_cpu_s: float = 0.0
    engines_cpu_s: float = 0.0
    others_cpu_share: float = 0.0
    """Of the machine's cores, what neither engines nor router nor client used: a noisy neighbour shows here."""
    told: dict[str, float] = field(default_factory=dict)
    """What hekla says of itself at the end, by the names in `TOLD`."""
    first_error: str = ""

    @property
    def key(self) -> tuple[str, int, str]:
        return (self.workload, self.seed, self.arm)


class ResultsFile:
    """Runs as lines; the first line says under which settings, and other settings are refused."""

    def __init__(self, path: Path, setup: dict[str, Any]) -> None:
        """Raises ValueError when the file holds runs of another set-up."""
        self._path = path
        self.runs: list[Run] = []
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(setup) + "\n")
            return
        head, *lines = path.read_text().splitlines()
        if json.loads(head) != setup:
            raise ValueError(f"{path} holds runs of another set-up, {head}; this one is {json.dumps(setup)}")
        self.runs = [Run(**json.loads(line)) for line in lines]

    def add(self, run: Run) -> None:
        self.runs.append(run)
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(run)) + "\n")

    def has(self, workload: str, seed: int, arm: str) -> bool:
        return (workload, seed, arm) in {run.key for run in self.runs}


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie, interpolated; nan of nothing."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


@dataclass(frozen=True)
class Ratio:
    """Geometric mean over the seeds that both arms ran, each seed compared with itself."""

    mean: float
    error: float
    """Standard error of the mean, as a share; 0 with one seed."""
    seeds: int


def ratio(runs: Sequence[Run], workload: str, arm: str, other: str, measure: str) -> Ratio | None:
    """`arm`'s `measure` over `other`'s; None when no seed has both."""
    ours, theirs = (
        {run.seed: float(getattr(run, measure)) for run in runs if run.workload == workload and run.arm == name}
        for name in (arm, other)
    )
    logs = [math.log(ours[seed] / theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
    if not logs:
        return None
    error = statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else 0.0
    return Ratio(math.exp(statistics.fmean(logs)), error, len(logs))


def mean_of(runs: Sequence[Run], workload: str, arm: str, measure: str) -> float:
    """Mean over the seeds; nan when the arm did not run."""
    values = [float(getattr(run, measure)) for run in runs if run.workload == workload and run.arm == arm]
    return statistics.fmean(values) if values else math.nan
