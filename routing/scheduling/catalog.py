"""The table of plugins by the name settings use, and the profile that settings describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from hekla.routing.config import LimitSettings, SchedulingSettings
from hekla.routing.scheduling.filters.capacity import Capacity
from hekla.routing.scheduling.filters.lora_loaded import LoraLoaded
from hekla.routing.scheduling.filters.ready import Ready
from hekla.routing.scheduling.filters.waiting import Waiting
from hekla.routing.scheduling.interface import Filter, Scorer
from hekla.routing.scheduling.pipeline import Profile
from hekla.routing.scheduling.scorers.least_prefill import LeastPrefill
from hekla.routing.scheduling.scorers.least_request import LeastRequest
from hekla.routing.scheduling.scorers.uniform import Uniform

Made = TypeVar("Made")

FILTERS: Mapping[str, Callable[[LimitSettings], Filter]] = {
    "ready": lambda limits: Ready(),
    "waiting": lambda limits: Waiting(limits.engine_waiting_max),
    "capacity": lambda limits: Capacity(limits.engine_requests_max),
    "lora-affinity": lambda limits: LoraLoaded(),
}

SCORERS: Mapping[str, Callable[[], Scorer]] = {
    "least-request": LeastRequest,
    "least-prefill": LeastPrefill,
    "random": Uniform,
}


def build_profile(scheduling: SchedulingSettings, limits: LimitSettings) -> Profile:
    """Raises ValueError naming a plugin that does not exist and those that do."""
    return Profile(
        filters=tuple(_named("filters", name, FILTERS)(limits) for name in scheduling.filters),
        scorers=tuple((_named("scorers", name, SCORERS)(), weight) for name, weight in scheduling.scorers),
    )


def _named(field: str, name: str, known: Mapping[str, Made]) -> Made:
    if name not in known:
        raise ValueError(f"scheduling.{field} names {name!r}; known: {', '.join(sorted(known))}")
    return known[name]
