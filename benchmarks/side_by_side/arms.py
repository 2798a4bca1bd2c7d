"""What is compared: hekla's default, its single policies, published routers, and choices made by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["by hand", "hekla", "rust"]


@dataclass(frozen=True)
class Arm:
    name: str
    kind: Kind
    settings: dict[str, Any] = field(default_factory=dict)
    """hekla: RoutingSettings other than the default."""
    package: str = ""
    """A published router's package, a key of PACKAGES."""
    policy: str = ""
    """A published router's policy; by hand: `pinned` or `in turn`."""


PACKAGES = {"vllm-router": "vllm-router==0.1.17", "smg": "smg==1.13.0", "sglang-router": "sglang-router==0.3.2"}
"""Wheels with their Rust part inside, each installed into an environment of its own: their dependencies clash."""


def _hekla(scorer: str) -> Arm:
    return Arm(f"hekla-{scorer}", "hekla", {"scheduling": {"scorers": [[scorer, 1.0]]}})


def _rust(package: str, policy: str) -> Arm:
    return Arm(f"{package}-{policy.replace('_', '-')}", "rust", package=package, policy=policy)


DEFAULT, ORACLE, RANDOM, IN_TURN = "hekla", "oracle", "hekla-random", "round-robin"
POLICIES = ("random", "least-request", "prefix-cache", "kv-cache", "prefill-times-batch", "cost")
"""hekla's scorers, each alone."""

ARMS = {
    arm.name: arm
    for arm in (
        Arm(DEFAULT, "hekla"),
        Arm(ORACLE, "by hand", policy="pinned"),
        Arm(IN_TURN, "by hand", policy="in turn"),
        *(_hekla(scorer) for scorer in POLICIES),
        _rust("vllm-router", "cache_aware"),
        _rust("vllm-router", "kv_aware"),
        _rust("vllm-router", "random"),
        _rust("smg", "cache_aware"),
        _rust("smg", "power_of_two"),
        _rust("sglang-router", "cache_aware"),
    )
}

USUAL = (
    DEFAULT, ORACLE, RANDOM, "vllm-router-cache-aware", "vllm-router-kv-aware", "smg-cache-aware",
)  # fmt: skip
"""Enough for every claim on the workloads with something to share."""
USUAL_WITHOUT_SHARING = (DEFAULT, RANDOM)
"""On (c) the claim is about random alone."""


def engine_by_hand(policy: str, group: int, number: int, engines: int) -> int:
    """`pinned`: every group has its engine, the groups spread evenly; `in turn`: request by request."""
    return (group if policy == "pinned" else number) % engines
