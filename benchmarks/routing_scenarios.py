"""What `routing_sim.py` runs: scenarios as data (they cross process borders), and the claims made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from report import Report

from hekla.deployments.simengine.scheduler import Limits
from hekla.routing.admission.settings import AdmissionSettings
from hekla.routing.admission.settings import Objective as AdmissionObjective
from hekla.simulation.baselines.catalog import BASELINES, HEKLA, ORACLES, policy_named
from hekla.simulation.engine.spec import EngineSpec, engine_spec
from hekla.simulation.fleet import Fleet, FleetSettings
from hekla.simulation.gate import Admission
from hekla.simulation.records import Objective, Summary
from hekla.simulation.request import SimRequest
from hekla.simulation.workload import mixed, mooncake, sessions, shared_prefix
from hekla.simulation.workload.interface import Workload

CAPS = (24, 32, 40, 48, 56, 64, 80)
"""Hand-tuned concurrency limits per engine, against which predictive admission is set."""
ROBUST = ("random", "least-request", "prefill-times-batch", "llm-d-blend", "dynamo-like", "sglang-like")
"""Rivals in the sweeps."""


@dataclass(frozen=True)
class Scenario:
    name: str
    family: str
    load: float
    """Requests per second, concurrency, users, or speed of a trace, as the family has it."""
    primary: str
    note: str
    objective: tuple[float, float] = (2.0, 0.05)
    """TTFT and time per output token, seconds."""
    replicas: int = 1
    staleness_s: float = 0.0
    admission: str = ""
    """`predictive`, `none`, `cap` (the policy's name has the number)."""
    seeds_max: int = 99
    policies: tuple[str, ...] = ()
    """Only these; empty: all."""
    seconds: float = 90.0
    data: str = ""
    cost: float = 1.0
    """About how many times as long as the others a run takes: long ones go first."""


@dataclass(frozen=True)
class Job:
    scenario: Scenario
    policy: str
    seed: int


def scenarios(data: Path, quick: bool) -> list[Scenario]:
    found = [
        Scenario("W1 8/s", "W1", 8, "e2e_mean_s", "below the knee"),
        Scenario("W1 16/s", "W1", 16, "goodput", "above the knee"),
        Scenario("W1 x400", "W1 closed", 400, "throughput", "closed loop"),
        Scenario("W2 x300", "W2", 300, "throughput", "closed loop, Kthena's shape", cost=6),
        Scenario("W3 x1", "W3", 1.0, "e2e_mean_s", "Mooncake conversation, below the knee", (5.0, 0.06), cost=2),
        Scenario("W3 x1.5", "W3", 1.5, "goodput", "Mooncake conversation, above the knee", (5.0, 0.06), cost=2),
        Scenario("W3 tools", "W3 tools", 1.0, "goodput", "likeness of Mooncake tool-agent", (5.0, 0.06), cost=2),
        Scenario("W4 x20", "W4", 20, "throughput", "code generation, below the knee", (5.0, 0.06)),
        Scenario("W4 x40", "W4", 40, "throughput", "code generation, above the knee", (5.0, 0.06)),
        Scenario("W5 x200", "W5", 200, "e2e_mean_s", "reasoning, below the knee", (5.0, 0.06)),
        Scenario("W5 x450", "W5", 450, "e2e_mean_s", "reasoning, above the knee", (5.0, 0.06)),
        Scenario("W7 60/s", "W7", 60, "tpot_p99_s", "mixed fleet, below the knee", (1.0, 0.1), cost=3),
        Scenario("W7 100/s", "W7", 100, "goodput", "mixed fleet, above the knee", (1.0, 0.1), cost=4),
        Scenario("W7 80/s unlabelled", "W7 unlabelled", 80, "tpot_p99_s", "mixed fleet whose labels tell nothing",
                 (1.0, 0.1), cost=3, policies=(OURS, *ROBUST)),
    ]  # fmt: skip
    for stale_ms in (0, 50, 200, 1000):
        found.append(
            Scenario(f"stale {stale_ms} ms", "W1", 12, "goodput", "W1 12/s, 4 router replicas", replicas=4,
                     staleness_s=stale_ms / 1e3, policies=(OURS, *ROBUST))
        )  # fmt: skip
    found.append(
        Scenario("1000 engines", "thousand", 4000, "e2e_mean_s", "1,000 engines, 3 router replicas, 50 ms stale",
                 replicas=3, staleness_s=0.05, seeds_max=1, policies=(OURS, "random", "least-request", "prefill-times-batch"),
                 cost=60)
    )  # fmt: skip
    if quick:
        keep = {"W1 8/s", "W1 16/s", "W2 x300", "W3 x1", "W4 x40", "W5 x200", "W7 100/s", "stale 1000 ms"}
        found = [replace(item, seconds=item.seconds / 3) for item in found if item.name in keep]
    return [replace(item, data=str(data)) for item in found]


OURS = HEKLA.name


def admission_scenarios(quick: bool) -> list[Scenario]:
    policies = ("predictive", "none", *(f"cap-{cap}" for cap in (CAPS[2:5] if quick else CAPS)))
    seconds = 60.0 if quick else 150.0
    return [
        Scenario("admission 24/s", "W1", 24, "good_per_s", "W1 offered at 24/s", admission="yes",
                 policies=policies, seconds=seconds)
    ]  # fmt: skip


def policies_for(scenario: Scenario, *, few: bool) -> Sequence[str]:
    if scenario.policies:
        return scenario.policies
    if few:
        return (OURS, *ROBUST, "static-oracle")
    return tuple(policy.name for policy in (HEKLA, *BASELINES, *ORACLES))


# -- one run ----------------------------------------------------------------------------------------------------------


def run_job(job: Job) -> tuple[Job, Summary]:
    scenario = job.scenario
    workload, engines = build(scenario, job.seed)
    policy = HEKLA if scenario.admission else policy_named(job.policy)
    if scenario.family == "W7 unlabelled":
        policy = policy.renamed(policy.name, knows_types=False)
    settings = FleetSettings(
        engines, scenario.replicas, scenario.staleness_s, admission=admission_of(job) if scenario.admission else None
    )
    run = Fleet(settings, policy, workload, seed=job.seed).run(Objective(*scenario.objective))
    return job, run.summary


def admission_of(job: Job) -> Admission:
    ttft_s, step_s = job.scenario.objective
    cap = int(job.policy.removeprefix("cap-")) if job.policy.startswith("cap-") else 0
    objectives = (AdmissionObjective(ttft_s, step_s),) if job.policy == "predictive" else ()
    timeout_s = 1e6 if job.policy == "none" else ttft_s
    return Admission(
        AdmissionSettings(per_engine_max=cap, objectives=objectives, timeout_s=timeout_s, queue_max=100_000,
                          tenant_queue_max=100_000)
    )  # fmt: skip


def build(scenario: Scenario, seed: int) -> tuple[Workload, list[EngineSpec]]:
    load, seconds = scenario.load, scenario.seconds
    warm_s = seconds / 3
    pair = engine_spec("Qwen3-32B", "H100", 2)
    made: dict[str, Callable[[], tuple[Workload, list[EngineSpec]]]] = {
        "W1": lambda: (shared_prefix.open_loop(shared_prefix.W1, seed, rate=load, seconds=seconds * 1.6, warm_s=warm_s * 2), [pair] * 8),
        "W1 closed": lambda: (_closed(shared_prefix.W1, seed, int(load), int(load * 5)), [pair] * 8),
        "W2": lambda: (_closed(shared_prefix.W2, seed, int(load), 0 if seconds > 60 else 2048), [_kthena_engine()] * 3),
        "W3": lambda: (_conversation(scenario, seed), [engine_spec("Qwen3-32B", "H100", 2, block_tokens=512)] * 8),
        "W3 tools": lambda: (_tools(seed, seconds), [engine_spec("Qwen3-32B", "H100", 2, block_tokens=512)] * 8),
        "W4": lambda: (_code(seed, int(load), seconds * 5), [pair] * 8),
        "W5": lambda: (sessions.reasoning(seed, concurrency=int(load)), [pair] * 8),
        "W7": lambda: (mixed.zipf_groups("W7", seed, rate=load, seconds=seconds / 1.5, warm_s=warm_s / 1.5), mixed_fleet()),
        "W7 unlabelled": lambda: (
            mixed.zipf_groups("W7", seed, rate=load, seconds=seconds / 1.5, warm_s=warm_s / 1.5), mixed_fleet()
        ),
        "thousand": lambda: (
            mixed.zipf_groups("thousand", seed, rate=load, seconds=10, groups=2000, lengths=(4096, 512, 128), cv=1.0, warm_s=3),
            [engine_spec("Llama-3-8B", "H100")] * 1000,
        ),
    }  # fmt: skip
    return made[scenario.family]()


def _closed(shape: shared_prefix.PrefixGroups, seed: int, concurrency: int, requests: int) -> Workload:
    return shared_prefix.closed_loop(shape, seed, concurrency=concurrency, requests=requests)


def _kthena_engine() -> EngineSpec:
    """Their flags; the accelerator is not stated: an L40S gives random the throughput they published."""
    limits = Limits(256, 65_536, 32_768)
    return replace(engine_spec("Qwen2.5-7B", "L40S", block_tokens=128), limits=limits)


def _code(seed: int, users: int, seconds: float) -> Workload:
    return sessions.conversations(sessions.CODE_GENERATION, seed, users=users, seconds=seconds, warm_s=seconds / 8)


def trace_file(data: Path) -> Path:
    return data / "traces" / mooncake.CONVERSATION


@cache
def _trace(data: str) -> Sequence[SimRequest]:
    path = trace_file(Path(data))
    return mooncake.read(path) if path.is_file() else mooncake.conversation_like(0, seconds=3537)


def _conversation(scenario: Scenario, seed: int) -> Workload:
    """Another ten minutes of the trace for each seed, the first of them uncounted."""
    seconds = scenario.seconds * 6.6
    return mooncake.window(
        "W3", _trace(scenario.data), seed, start_s=(seed - 1) * 580 % 2900, seconds=seconds, speed=scenario.load,
        warm_s=seconds / 10,
    )  # fmt: skip


def _tools(seed: int, seconds: float) -> Workload:
    requests = mooncake.tool_agent_like(seed, seconds=seconds * 3)
    return Workload("W3 tools", mooncake.BLOCK_TOKENS, requests, warm_s=seconds / 3)


def mixed_fleet() -> list[EngineSpec]:
    counts = {"H100": 2, "A100": 2, "L40S": 4, "L4": 4}
    return [engine_spec("Llama-3-8B", name) for name, count in counts.items() for _ in range(count)]


# -- claims -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    judge: Callable[[Report, Any], None]


def claim_of(found: Sequence[Scenario], queued: Sequence[Scenario]) -> list[Claim]:
    """Those whose scenarios were run."""
    named = {scenario.name: scenario for scenario in (*found, *queued)}
    claims = [
        Claim(lambda report, judge, s=scenario: _no_loss(report, judge, s))
        for scenario in found
        if scenario.name.startswith(("W1", "W2", "W3", "W4", "W5"))
    ]
    if all(any(name.startswith(f"W{i}") for name in named) for i in (1, 2, 3)):
        claims.append(Claim(lambda report, judge: _clearly_better(report, judge, found)))
    if "W2 x300" in named:
        claims.append(Claim(lambda report, judge: _kthena(report, judge)))
    claims += [
        Claim(lambda report, judge, s=scenario: _mixed(report, judge, s))
        for scenario in found
        if scenario.name.startswith("W7")
    ]
    claims += [
        Claim(lambda report, judge, s=scenario: _no_loss(report, judge, s))
        for scenario in found
        if scenario.name.startswith("stale")
    ]
    claims += [Claim(lambda report, judge, s=scenario: _admission(report, judge, s)) for scenario in queued]
    return claims


def _no_loss(report: Report, judge: Any, scenario: Scenario) -> None:
    rival, interval = judge.against_best(scenario, scenario.primary)
    report.at_least(
        f"{scenario.name}: {scenario.primary} against {rival}, the best rival: upper end of the 95 % interval of our gain",
        interval.high, 0.0,
    )  # fmt: skip


def _clearly_better(report: Report, judge: Any, found: Sequence[Scenario]) -> None:
    """Per workload the best gain of our primary metric over each scenario's best rival."""
    gains = {}
    for family in ("W1", "W2", "W3"):
        gains[family] = max(
            judge.against_best(scenario, scenario.primary)[1].mean
            for scenario in found
            if scenario.name.startswith(family)
        )
    report.at_least("W1 to W3: workloads on which we are at least 5 % better than the best rival",
                    float(sum(value >= 0.05 for value in gains.values())), 2.0)  # fmt: skip


def _kthena(report: Report, judge: Any) -> None:
    name = "W2 x300"
    random_throughput = judge.mean(name, "throughput", "random")
    times = judge.mean(name, "throughput") / random_throughput
    bound = judge.mean(name, "throughput", "static-oracle") / random_throughput
    report.at_least(
        f"W2: throughput, times random's (the static oracle's is {bound:.2f})", times, min(2.73, round(bound, 4))
    )
    random_ttft = judge.mean(name, "ttft_mean_s", "random")
    less = 1 - judge.mean(name, "ttft_mean_s") / random_ttft
    least = 1 - judge.mean(name, "ttft_mean_s", "static-oracle") / random_ttft
    report.at_least(f"W2: mean TTFT, share below random's (the static oracle's is {least:.3f})", less,
                    min(0.735, round(least, 4)))  # fmt: skip


def _mixed(report: Report, judge: Any, scenario: Scenario) -> None:
    """20 % lower TPOT p99, or 5 % more goodput: the better of the two, each as a share of its target."""
    tpot = judge.against_best(scenario, "tpot_p99_s")[1].mean / 0.20
    goodput = judge.against_best(scenario, "goodput")[1].mean / 0.05
    report.at_least(f"{scenario.name}: gain of TPOT p99 over 20 %, or of goodput over 5 %, against the best rival",
                    max(tpot, goodput), 1.0)  # fmt: skip


def _admission(report: Report, judge: Any, scenario: Scenario) -> None:
    caps = [policy for policy in scenario.policies if policy.startswith("cap-")]
    cap, best = judge.best(scenario, "good_per_s", caps)
    report.at_least(f"{scenario.name}: good requests/s, predictive over {cap}, the best hand-tuned cap",
                    judge.mean(scenario.name, "good_per_s", "predictive") / best, 1.0)  # fmt: skip
