"""Mooncake's public traces (FAST'25): real prompts as chains of 512-token blocks, and a synthetic likeness of one.

The format is JSON lines of `timestamp` (ms), `input_length`, `output_length`, `hash_ids`; an id stands for a block and all
before it. The last block of a prompt may be partial: it is then not named, since it can't be found again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from random import Random

from hekla.simulation.request import SimRequest
from hekla.simulation.workload.arrivals import gamma
from hekla.simulation.workload.interface import BlockNames, Workload

BLOCK_TOKENS = 512
ROWS_MAX = 1_000_000
CONVERSATION = "mooncake_conversation.jsonl"


def read(path: Path, *, split: int = 1) -> list[SimRequest]:
    """A trace file. `split`: cut each block into so many. Raises ValueError naming the line that is no request."""
    requests = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number >= ROWS_MAX:
                raise ValueError(f"{path.name} has more than {ROWS_MAX} requests")
            try:
                requests.append(_request(number, json.loads(line), split))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{path.name}, line {number + 1}: no request of a Mooncake trace: {error!r}"
                ) from error
    return requests


def _request(number: int, row: dict[str, object], split: int) -> SimRequest:
    tokens, ids = int(str(row["input_length"])), row["hash_ids"]
    if not isinstance(ids, list) or tokens < 1:
        raise ValueError("hash_ids must be a list and input_length at least 1")
    full = tokens // (BLOCK_TOKENS // split)
    blocks = tuple(int(name) * split + part for name in ids for part in range(split))[:full]
    output = max(1, int(str(row["output_length"])))
    return SimRequest(number, float(str(row["timestamp"])) / 1e3, tokens, output, blocks)


def window(
    name: str, trace: Iterable[SimRequest], seed: int, *, start_s: float, seconds: float, speed: float = 1.0,
    warm_s: float = 0.0, split: int = 1,
) -> Workload:  # fmt: skip
    """`seconds` of a trace from `start_s` on, `speed` times as fast, each arrival within its 3 s of coarse time stamp."""
    dice = Random(f"{name}/{seed}")
    chosen = [item for item in trace if start_s <= item.arrived_s < start_s + seconds]
    timed = sorted(((item.arrived_s - start_s + dice.uniform(0, 3)) / speed, item.id, item) for item in chosen)
    requests = [
        SimRequest(i, at, item.prompt_tokens, item.output_tokens, item.blocks) for i, (at, _, item) in enumerate(timed)
    ]
    return Workload(f"{name} x{speed:g}", BLOCK_TOKENS // split, requests, warm_s=warm_s / speed)


def conversation_like(seed: int, *, seconds: float, sessions_per_s: float = 2.25) -> list[SimRequest]:
    """A likeness of the conversation trace: lengths, turns, pauses and shared documents as in its statistics."""
    dice, names = Random(f"conversation-like/{seed}"), BlockNames()
    head = names.take(1)
    documents = [names.take(dice.randint(5, 40)) for _ in range(50)]
    found: list[SimRequest] = []
    for start_s in gamma(dice, sessions_per_s, seconds, cv=1.0):
        found += _session(dice, names, start_s, head + (dice.choice(documents) if dice.random() < 0.1 else ()))
    found = sorted((item for item in found if item.arrived_s < seconds), key=lambda item: item.arrived_s)
    for number, item in enumerate(found):
        item.id = number
    return found


def _session(dice: Random, names: BlockNames, now_s: float, blocks: tuple[int, ...]) -> list[SimRequest]:
    turns = 1
    while dice.random() > 0.66 and turns < 43:
        turns += 1
    tokens = int(min(126_000, max(890, dice.lognormvariate(8.6, 1.2)))) + len(blocks) * BLOCK_TOKENS - BLOCK_TOKENS
    found = []
    for _ in range(turns):
        blocks += names.take(max(0, tokens // BLOCK_TOKENS - len(blocks)))
        output = int(min(2000, max(1, dice.lognormvariate(5.02, 1.36))))
        found.append(SimRequest(0, now_s, tokens, output, blocks[: tokens // BLOCK_TOKENS]))
        now_s += dice.lognormvariate(4.81, 1.1)
        tokens = min(126_000, tokens + int(dice.lognormvariate(6.16, 1.8)))
    return found


def tool_agent_like(seed: int, *, seconds: float, rate: float = 6.7) -> list[SimRequest]:
    """A likeness of the tool-and-agent trace: 8,600 tokens in and 182 out on average, 59 % of blocks seen before.

    A few long tool descriptions are shared by most requests; the rest is each request's own.
    """
    dice, names = Random(f"tool-agent-like/{seed}"), BlockNames()
    tools = [names.take(max(2, int(dice.lognormvariate(2.25, 0.5)))) for _ in range(120)]
    weights = [1 / (rank + 1) ** 0.9 for rank in range(len(tools))]
    found = []
    for number, at in enumerate(gamma(dice, rate, seconds, cv=1.2)):
        shared = dice.choices(tools, weights)[0] if dice.random() < 0.82 else ()
        own = int(min(60_000, dice.lognormvariate(7.55, 0.95)))
        tokens = len(shared) * BLOCK_TOKENS + max(64, own)
        blocks = shared + names.take(tokens // BLOCK_TOKENS - len(shared))
        found.append(SimRequest(number, at, tokens, int(min(2000, max(1, dice.lognormvariate(4.6, 1.1)))), blocks))
    return found


def infinite_hit_share(requests: Iterable[SimRequest]) -> float:
    """Share of blocks seen before: the bound that no cache can beat."""
    seen: set[int] = set()
    total = hits = 0
    for request in requests:
        total += len(request.blocks)
        hits += sum(1 for name in request.blocks if name in seen)
        seen.update(request.blocks)
    return hits / max(1, total)
