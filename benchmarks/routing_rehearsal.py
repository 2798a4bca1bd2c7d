"""Benchmark: the workloads of routing_vllm in virtual time: what choices alone are worth, without a machine's noise.

Three simulated engines as slow as vLLM on one core each, their caches as small, behind the production scheduler; many
seeds in a minute. The published routers stand for themselves only in routing_vllm; here `sglang-like` has the rule
that their `cache_aware` policies share, and the other baselines theirs. An engine's speed does not depend on its
neighbours here; on two cores it does.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from report import Report
from side_by_side.fleet import BLOCK_TOKENS, BLOCKS
from side_by_side.results import percentile
from side_by_side.workload import SHAPES, Shape

from hekla.deployments.simengine.scheduler import Limits
from hekla.deployments.simengine.steps import Linear
from hekla.simulation.baselines.catalog import POLICIES, cost_policy
from hekla.simulation.engine.spec import EngineSpec
from hekla.simulation.fleet import Fleet, FleetSettings
from hekla.simulation.policy import Policy
from hekla.simulation.workload.shared_prefix import PrefixGroups, closed_loop

ENGINES = 3
TEMPLATE_TOKENS = 14
"""What the chat template adds; the better part before the system prompt's end."""
SPEED = Linear(base_ms=60, prefill_token_ms=2.0, decode_sequence_ms=12, context_token_ms=0.002)
"""SmolLM2-135M on one core of a server: 590 prompt tokens a second at 1,000, 420 at 2,500."""
STALENESS_S = 0.02
OURS, ORACLE, STICKY, RANDOM = "hekla", "static-oracle", "sglang-like", "random"
USUAL = (OURS, ORACLE, STICKY, "approximate-only", "prefill-times-batch", "dynamo-like", "llm-d-blend", "least-request",
         RANDOM)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    requests_per_s: float
    ttft_mean_s: float
    ttft_p90_s: float
    hit_rate: float


def rehearse(policy: Policy, shape: Shape, seed: int, *, is_warm: bool) -> Outcome:
    spec = EngineSpec(
        "one core", SPEED, BLOCKS - 1, BLOCK_TOKENS, Limits(max_num_seqs=128, max_model_len=4096),
        model_name="smollm2-135m", accelerator="cpu",
    )  # fmt: skip
    system = shape.system_tokens + TEMPLATE_TOKENS // 2
    groups = PrefixGroups(shape.name, shape.groups, shape.prompts, system, shape.question_tokens + TEMPLATE_TOKENS // 2,
                          shape.output_tokens, BLOCK_TOKENS)  # fmt: skip
    workload = closed_loop(groups, seed, concurrency=shape.concurrency)
    fleet = Fleet(FleetSettings([spec] * ENGINES, staleness_s=STALENESS_S), policy, workload, seed=seed)
    if is_warm and policy.knowledge == "exact":
        _meet(fleet)
    records = fleet.run().records
    waits = [record.ttft_s for record in records]
    cached = sum(record.cached_tokens for record in records) / sum(record.prompt_tokens for record in records)
    seconds = max(record.finished_s for record in records)
    return Outcome(len(records) / seconds, statistics.fmean(waits), percentile(waits, 0.9), cached)


def _meet(fleet: Fleet) -> None:
    """As after a first request and an emptied cache: the engines' block size is known, and nothing is in them."""
    block = 10**9
    for router in fleet.routers:
        for engine in fleet.engines:
            router.hear_cache(engine, [block, ~block])


def ratio(ours: Sequence[Outcome], theirs: Sequence[Outcome], measure: str) -> float:
    """Geometric mean of the seeds' ratios."""
    pairs = zip(ours, theirs, strict=True)
    return math.exp(statistics.fmean(math.log(getattr(a, measure) / getattr(b, measure)) for a, b in pairs))


def tell(report: Report, name: str, found: dict[str, list[Outcome]]) -> None:
    for policy, outcomes in found.items():
        row = {
            field: round(statistics.fmean(getattr(o, field) for o in outcomes), 3) for field in Outcome.__annotations__
        }
        against = {
            f"{field}_of_oracle": round(ratio(outcomes, found[ORACLE], field), 3)
            for field in ("requests_per_s", "ttft_mean_s")
        }
        report.add(workload=name, policy=policy, seeds=len(outcomes), **row, **against)
    ours = found[OURS]
    if name == "c":
        report.at_least("(c) throughput, share of random's", ratio(ours, found[RANDOM], "requests_per_s"), 1.0)
        return
    report.at_least(f"({name}) throughput, share of the oracle's", ratio(ours, found[ORACLE], "requests_per_s"), 0.9)
    report.at_most(
        f"({name}) mean time to first token, times the oracle's", ratio(ours, found[ORACLE], "ttft_mean_s"), 1.15
    )
    report.at_least(f"({name}) throughput, times the sticky rule's", ratio(ours, found[STICKY], "requests_per_s"), 1.0)
    report.at_most(
        f"({name}) p90 time to first token, times the sticky rule's", ratio(ours, found[STICKY], "ttft_p90_s"), 1.0
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    parser.add_argument("--workloads", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--policies", nargs="+", choices=list(POLICIES), default=list(USUAL))
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--cold", action="store_true", help="the router has not heard of the engines' blocks yet")
    parser.add_argument("--cost", nargs="*", default=[], metavar="D,RHO", help="the cost scorer with these, besides")
    options = parser.parse_args()
    report = Report("routing_rehearsal")
    names = dict.fromkeys([OURS, ORACLE, STICKY, RANDOM, *options.policies])
    policies = [POLICIES[name] for name in names]
    for given in options.cost:
        d, rho = (float(part) for part in given.split(","))
        policies.append(cost_policy(f"cost d={d:g} rho={rho:g}", d=d, rho=rho))
    for name in options.workloads:
        found = {
            policy.name: [
                rehearse(policy, SHAPES[name], seed, is_warm=not options.cold) for seed in range(1, options.seeds + 1)
            ]
            for policy in policies
        }
        tell(report, name, found)
    report.finish(options.json)


if __name__ == "__main__":
    main()
