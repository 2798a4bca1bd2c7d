"""Workloads about the fleet rather than the prompt: `W7` mixed accelerators, `W8` a flooding tenant, `W9` LoRA adapters,
`W11` long and short prompts side by side, and one for a thousand engines.
"""

from __future__ import annotations

from random import Random

from hekla.simulation.request import SimRequest
from hekla.simulation.workload.arrivals import gamma, normal, zipf_weights
from hekla.simulation.workload.interface import BlockNames, Workload

BLOCK_TOKENS = 64


def zipf_groups(
    name: str, seed: int, *, rate: float, seconds: float, groups: int = 64, lengths: tuple[int, int, int] = (1024, 512, 200),
    cv: float = 2.0, warm_s: float = 0.0,
) -> Workload:  # fmt: skip
    """`W7`: groups of Zipf(0.8) popularity; `lengths` are the shared, the own and the generated tokens."""
    dice, names = Random(f"{name}/{seed}"), BlockNames()
    shared, own, output = lengths
    systems = [names.take(shared // BLOCK_TOKENS) for _ in range(groups)]
    chosen = dice.choices(range(groups), zipf_weights(groups, 0.8), k=int(rate * seconds * 3) + 100)
    requests = [
        SimRequest(i, at, shared + own, normal(dice, output, output / 4), systems[chosen[i % len(chosen)]],
                   group=chosen[i % len(chosen)])
        for i, at in enumerate(gamma(dice, rate, seconds, cv=cv))
    ]  # fmt: skip
    return Workload(f"{name} {rate:g}/s", BLOCK_TOKENS, requests, warm_s=warm_s)


def flood(
    seed: int, *, rates: dict[str, float], seconds: float, groups: int = 150, output_tokens: int = 1000, warm_s: float = 0.0
) -> Workload:  # fmt: skip
    """`W8`: tenants with rates of their own, each over the same shape as W1 (6,000 + 1,200 → 1,000) with its own groups."""
    dice, names = Random(f"W8/{seed}"), BlockNames()
    per_tenant = max(1, groups // len(rates))
    found = []
    for tenant, rate in rates.items():
        systems = [names.take(6000 // BLOCK_TOKENS) for _ in range(per_tenant)]
        for at in gamma(dice, rate, seconds, cv=1.0):
            group = dice.randrange(per_tenant)
            found.append(SimRequest(0, at, 7200, output_tokens, systems[group], tenant=tenant, group=group))
    found.sort(key=lambda item: item.arrived_s)
    for number, item in enumerate(found):
        item.id = number
    return Workload("W8", BLOCK_TOKENS, found, warm_s=warm_s)


def adapters(seed: int, *, rate: float, seconds: float, count: int = 100, warm_s: float = 0.0) -> Workload:
    """`W9`: `count` LoRA adapters, Zipf(1.0); each has a system prompt of 512 tokens, then 256 own and 128 generated."""
    dice, names = Random(f"W9/{seed}"), BlockNames()
    systems = [names.take(512 // BLOCK_TOKENS) for _ in range(count)]
    weights = zipf_weights(count, 1.0)
    requests = []
    for number, at in enumerate(gamma(dice, rate, seconds, cv=1.0)):
        adapter = dice.choices(range(count), weights)[0]
        requests.append(SimRequest(number, at, 768, 128, systems[adapter], adapter=f"adapter-{adapter}", group=adapter))
    return Workload(f"W9 {rate:g}/s", BLOCK_TOKENS, requests, warm_s=warm_s)


def long_and_short(seed: int, *, rate: float, seconds: float, long_share: float = 0.3, warm_s: float = 0.0) -> Workload:
    """`W11`: cold prompts of 5,000 → 250 between chat turns of 2,048 shared + 256 → 256."""
    dice, names = Random(f"W11/{seed}"), BlockNames()
    systems = [names.take(2048 // BLOCK_TOKENS) for _ in range(32)]
    requests = []
    for number, at in enumerate(gamma(dice, rate, seconds, cv=1.0)):
        if dice.random() < long_share:
            requests.append(SimRequest(number, at, 5000, 250, ()))
        else:
            group = dice.randrange(32)
            requests.append(SimRequest(number, at, 2304, 256, systems[group], group=group))
    return Workload(f"W11 {rate:g}/s", BLOCK_TOKENS, requests, warm_s=warm_s)
