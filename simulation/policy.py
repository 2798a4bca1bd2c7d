"""A routing policy as data: how a simulated router is built of production parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hekla.routing.scheduling.forecast import HEADROOM, Forecaster
from hekla.routing.scheduling.interface import Filter, Scorer

Knowledge = Literal["exact", "approximate", "none"]


@dataclass(frozen=True)
class PolicyParts:
    """What a policy may be built of, per router replica."""

    forecaster: Forecaster
    groups_home: Callable[[int], int]
    """Prefix group to engine's position, for the static oracle."""


MakeScorers = Callable[[PolicyParts], Sequence[tuple[Scorer, float]]]


@dataclass(frozen=True)
class Policy:
    name: str
    scorers: MakeScorers
    filters: Callable[[PolicyParts], Sequence[Filter]] = lambda parts: ()
    knowledge: Knowledge = "exact"
    in_flight_credit: bool = True
    """Prompts on their way count as cached where they go."""
    headroom: float = HEADROOM
    knows_types: bool = True
    """Backends carry the labels that the shipped priors read; False: every speed is learned."""
    unbounded_cache: bool = False
    """The bound 'infinite cache': engines never evict."""
    knows_output: bool = False
    """The bound 'omniscient': `output_tokens_max` is the true length."""

    def renamed(self, name: str, **changes: object) -> Policy:
        return replace(self, name=name, **changes)  # type: ignore[arg-type]  # fields of this class
