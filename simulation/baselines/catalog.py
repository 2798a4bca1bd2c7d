"""Every policy by name: hekla's own, the baselines, and the bounds that no router can reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hekla.routing.scheduling.interface import Scorer
from hekla.routing.scheduling.scorers.cost import Cost
from hekla.routing.scheduling.scorers.least_request import LeastRequest
from hekla.routing.scheduling.scorers.power_of_two import PowerOfTwo
from hekla.routing.scheduling.scorers.prefill_times_batch import PrefillTimesBatch
from hekla.routing.scheduling.scorers.uniform import Uniform
from hekla.simulation.baselines.aibrix_like import AibrixLike
from hekla.simulation.baselines.consistent_hash import ConsistentHash
from hekla.simulation.baselines.dynamo_like import DynamoLike
from hekla.simulation.baselines.kthena_like import KthenaLike
from hekla.simulation.baselines.llm_d_blend import LlmdBlend
from hekla.simulation.baselines.llm_d_sticky import LlmdSticky
from hekla.simulation.baselines.pinned import Pinned
from hekla.simulation.baselines.ray_like import RayLike
from hekla.simulation.baselines.round_robin import RoundRobin
from hekla.simulation.baselines.sglang_like import SglangLike
from hekla.simulation.policy import Policy, PolicyParts

Make = Callable[[PolicyParts], Scorer]


def one(name: str, make: Make) -> Policy:
    return Policy(name, lambda parts: [(make(parts), 1.0)])


def cost_policy(name: str = "cost", **arguments: float) -> Policy:
    """The cost scorer with arguments of its own (`d`, `rho`)."""
    return one(name, lambda parts: Cost(parts.forecaster, **arguments))


HEKLA = cost_policy("hekla")
"""What a router does whose settings say nothing."""

BASELINES = (
    one("random", lambda parts: Uniform()).renamed("random", knowledge="none"),
    one("round-robin", lambda parts: RoundRobin()).renamed("round-robin", knowledge="none"),
    one("least-request", lambda parts: LeastRequest()).renamed("least-request", knowledge="none"),
    one("power-of-two", lambda parts: PowerOfTwo()).renamed("power-of-two", knowledge="none"),
    one("consistent-hash", lambda parts: ConsistentHash()).renamed("consistent-hash", knowledge="none"),
    one("sglang-like", lambda parts: SglangLike(parts.forecaster.knowledge)),
    one("aibrix-like", lambda parts: AibrixLike(parts.forecaster.knowledge)),
    one("ray-like", lambda parts: RayLike(parts.forecaster.knowledge)),
    one("kthena-like", lambda parts: KthenaLike(parts.forecaster.knowledge)),
    one("llm-d-blend", lambda parts: LlmdBlend(parts.forecaster)),
    one("llm-d-sticky", lambda parts: LlmdSticky(parts.forecaster.knowledge)),
    one("dynamo-like", lambda parts: DynamoLike(parts.forecaster.knowledge)),
    one("prefill-times-batch", lambda parts: PrefillTimesBatch(parts.forecaster)),
    HEKLA.renamed("approximate-only", knowledge="approximate"),
)
ORACLES = (
    one("static-oracle", lambda parts: Pinned(parts.groups_home)),
    HEKLA.renamed("infinite-cache", unbounded_cache=True),
    HEKLA.renamed("known-output", knows_output=True),
)
POLICIES: Mapping[str, Policy] = {policy.name: policy for policy in (HEKLA, *BASELINES, *ORACLES)}


def policy_named(name: str) -> Policy:
    """Raises ValueError that lists the known names."""
    if name not in POLICIES:
        raise ValueError(f"policy {name!r} is unknown; known: {', '.join(POLICIES)}")
    return POLICIES[name]
