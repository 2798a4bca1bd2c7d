"""What decision rules are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.candidates import Candidates, Mask
from hekla.routing.scheduling.interface import Candidate, PrefixKnowledge, RequestView
from hekla.routing.scheduling.knowledge import matched, prompt_tokens


class Match(NamedTuple):
    tokens: Vector
    """Cached tokens per candidate."""
    share: Vector
    """Of the prompt."""
    total: int
    """Prompt tokens."""


def match_of(request: RequestView, candidates: Candidates, knowledge: PrefixKnowledge) -> Match:
    total = prompt_tokens(request)
    tokens = matched(request, candidates, knowledge)
    return Match(tokens, tokens / total, total)


def lowest(costs: Vector, among: Mask | None = None) -> Vector:
    """1 for the least of the costs (among those where `among` is true), 0 for all others: ties are drawn by lot."""
    if among is not None:
        costs = np.where(among, costs, np.inf)
    marked: Vector = (costs == costs.min()).astype(np.float64)
    return marked


def spread(values: Vector) -> Vector:
    """(max - x) / (max - min): 1 for the least loaded; all 1 when all are equal."""
    low, high = values.min(), values.max()
    if high <= low:
        return np.ones(len(values))
    shares: Vector = (high - values) / (high - low)
    return shares


def as_candidates(candidates: Sequence[Candidate]) -> Candidates:
    return Candidates.of(candidates)
