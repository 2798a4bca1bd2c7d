"""Groups of prompts that share one system prompt: the benchmark of most routers.

| name | source | groups × prompts | system + question → output |
|---|---|---|---|
| `W1` | llm-d's "precise guide" | 150 × 5 | 6,000 + 1,200 → 1,000 |
| `W2` | Kthena's published long system prompt | 256 × 32 | 4,096 + 256 → 128, closed loop of 300 |
| `llm-d 37 %` | llm-d, cache a third of the prefixes | 83 × 3 | 8,000 + 1,000 → 1,000 |
| `llm-d synthetic` | shared_prefix_synthetic | 32 × 32 | 2,048 + 256 → 256 |
| `llm-d tiered` | its CPU tier | 250 × 5 | 16,000 + 256 → 256 |
| `ray` | PrefixRepetition | 64 × 32 | 512 + 128 → 128 |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from random import Random

from hekla.simulation.request import SimRequest
from hekla.simulation.workload.arrivals import gamma
from hekla.simulation.workload.interface import BlockNames, Workload


@dataclass(frozen=True)
class PrefixGroups:
    name: str
    groups: int
    prompts: int
    """Per group."""
    system_tokens: int
    question_tokens: int
    output_tokens: int
    block_tokens: int = 64


W1 = PrefixGroups("W1", 150, 5, 6000, 1200, 1000)
W2 = PrefixGroups("W2", 256, 32, 4096, 256, 128, block_tokens=128)
PRESETS = {
    preset.name: preset
    for preset in (
        W1,
        W2,
        PrefixGroups("llm-d 37 %", 83, 3, 8000, 1000, 1000),
        PrefixGroups("llm-d synthetic", 32, 32, 2048, 256, 256),
        PrefixGroups("llm-d tiered", 250, 5, 16_000, 256, 256),
        PrefixGroups("ray", 64, 32, 512, 128, 128),
    )
}


def prompts_of(shape: PrefixGroups, dice: Random) -> list[SimRequest]:
    """Every prompt once, shuffled; ids and arrivals are still to be given."""
    names, size = BlockNames(), shape.block_tokens
    length = shape.system_tokens + shape.question_tokens
    shared = shape.system_tokens // size
    prompts = []
    for group in range(shape.groups):
        system = names.take(shared)
        for _ in range(shape.prompts):
            blocks = system + names.take(length // size - shared)
            prompts.append(SimRequest(0, 0.0, length, shape.output_tokens, blocks, group=group))
    dice.shuffle(prompts)
    return prompts


def open_loop(
    shape: PrefixGroups, seed: int, *, rate: float, seconds: float, cv: float = 1.0, warm_s: float = 0.0
) -> Workload:
    """The shuffled prompts over and over, `rate` per second."""
    dice = Random(f"{shape.name}/{seed}")
    endless = cycle(prompts_of(shape, dice))
    arrivals = gamma(dice, rate, seconds, cv=cv)
    requests = [_again(next(endless), number, arrived_s) for number, arrived_s in enumerate(arrivals)]
    return Workload(f"{shape.name} {rate:g}/s", shape.block_tokens, requests, warm_s=warm_s)


def closed_loop(shape: PrefixGroups, seed: int, *, concurrency: int, requests: int = 0) -> Workload:
    """Every prompt once (or `requests` of them), `concurrency` at a time: an answer's end sends the next."""
    prompts = prompts_of(shape, Random(f"{shape.name}/{seed}"))[: requests or None]
    return one_after_another(f"{shape.name} x{concurrency}", shape.block_tokens, prompts, concurrency)


def one_after_another(
    name: str, block_tokens: int, prompts: Sequence[SimRequest], concurrency: int, *, start_rate: float = 800.0
) -> Workload:
    """A closed loop over prompts; the first `concurrency` start at `start_rate` per second."""
    first = [_again(prompt, i, i / start_rate) for i, prompt in enumerate(prompts[:concurrency])]
    left = iter(list(enumerate(prompts))[concurrency:])

    def follow(request: SimRequest, finished_s: float) -> Sequence[SimRequest]:
        for number, prompt in left:
            return [_again(prompt, number, finished_s)]
        return ()

    return Workload(name, block_tokens, first, follow)


def _again(prompt: SimRequest, number: int, arrived_s: float) -> SimRequest:
    return SimRequest(
        number, arrived_s, prompt.prompt_tokens, prompt.output_tokens, prompt.blocks, prompt.after, group=prompt.group
    )
