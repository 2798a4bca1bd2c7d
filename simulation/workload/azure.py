"""Azure's public traces of 2023 (columns TIMESTAMP, ContextTokens, GeneratedTokens), and likenesses of both.

They say nothing of prefixes: a share of requests is given one of a few synthetic system prompts.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random

from hekla.simulation.request import SimRequest
from hekla.simulation.workload.arrivals import gamma, zipf_weights
from hekla.simulation.workload.interface import BlockNames, Workload

CONVERSATION = "azure_llm_2023_conv.csv"
ROWS_MAX = 1_000_000
BLOCK_TOKENS = 64


def read(path: Path) -> list[tuple[float, int, int]]:
    """Arrival (s from the first), prompt and output tokens. Raises ValueError naming the line that is no request."""
    found: list[tuple[float, int, int]] = []
    start: datetime | None = None
    with path.open(encoding="utf-8", newline="") as lines:
        for number, row in enumerate(csv.DictReader(lines)):
            if number >= ROWS_MAX:
                raise ValueError(f"{path.name} has more than {ROWS_MAX} requests")
            try:
                at = datetime.fromisoformat(row["TIMESTAMP"][:26])
                start = start or at
                prompt, output = int(row["ContextTokens"]), int(row["GeneratedTokens"])
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path.name}, line {number + 2}: no request of an Azure trace: {error!r}") from error
            found.append(((at - start).total_seconds(), max(1, prompt), max(1, output)))
    return found


@dataclass(frozen=True)
class Lengths:
    """Log-normal fits of one trace: (mu, sigma) of prompt and of output, the burstiness and rate of its arrivals."""

    prompt: tuple[float, float]
    output: tuple[float, float]
    cv: float
    rate: float


CODE_LIKE = Lengths((7.00, 1.36), (2.79, 0.85), 13.2, 2.57)
CONVERSATION_LIKE = Lengths((6.63, 0.985), (5.02, 0.86), 1.09, 5.53)


def like(lengths: Lengths, seed: int, *, seconds: float, rate: float = 0.0) -> list[tuple[float, int, int]]:
    """A likeness of a trace, at its own rate or another."""
    dice = Random(f"azure/{lengths.cv}/{seed}")
    found = []
    for at in gamma(dice, rate or lengths.rate, seconds, cv=lengths.cv):
        prompt = int(min(8000, max(16, dice.lognormvariate(*lengths.prompt))))
        found.append((at, prompt, int(min(2000, max(1, dice.lognormvariate(*lengths.output))))))
    return found


def with_prefixes(
    name: str, rows: Sequence[tuple[float, int, int]], seed: int, *, groups: int = 32, share: float = 0.5,
    system_tokens: int = 1024, warm_s: float = 0.0,
) -> Workload:  # fmt: skip
    """`share` of the requests are put behind one of `groups` system prompts, Zipf(0.8)."""
    dice, names = Random(f"{name}/{seed}"), BlockNames()
    systems = [names.take(system_tokens // BLOCK_TOKENS) for _ in range(groups)]
    weights = zipf_weights(groups, 0.8)
    requests = []
    for number, (at, prompt, output) in enumerate(rows):
        group = dice.choices(range(groups), weights)[0] if dice.random() < share else -1
        blocks = systems[group] if group >= 0 else ()
        tokens = prompt + (system_tokens if group >= 0 else 0)
        requests.append(SimRequest(number, at, tokens, output, blocks, group=group))
    return Workload(name, BLOCK_TOKENS, requests, warm_s=warm_s)
