"""The nouns of LoRA placement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hekla.platform.api.meta import ApiModel


class AdapterAsk(ApiModel):
    """What an engine's supervisor is told to have loaded."""

    name: str
    uri: str


@dataclass(frozen=True)
class Adapter:
    """A declared adapter."""

    name: str
    uri: str = ""
    pinned: bool = False
    replicas_min: int = 0
    replicas_max: int = 0
    """0: no limit of its own."""

    def capped(self, replicas: int, hosts: int) -> int:
        """`replicas` within its own limits and the hosts there are."""
        most = min(hosts, self.replicas_max or hosts)
        return max(min(self.replicas_min, hosts), min(replicas, most))


@dataclass(frozen=True)
class Host:
    """Where adapters are loaded together: one engine, or the prefill and decode engines of one group."""

    key: str
    slots: int
    """Adapters it can hold, less those that others have put there."""
    held: Mapping[str, float] = field(default_factory=dict)
    """Adapters it was last told to hold, each with the monotonic second since when."""
    failed: frozenset[str] = frozenset()
    """Adapters that could not be loaded there."""


@dataclass(frozen=True)
class Demand:
    """What clients ask for, as of now."""

    rates: Mapping[str, float] = field(default_factory=dict)
    """Requests per second by adapter, smoothed."""
    total: float = 0.0
    """Requests per second of the whole pool, its base model's included."""
    waiting: Mapping[str, float] = field(default_factory=dict)
    """Adapters that requests wait for now, each with the monotonic second since when."""

    def rate(self, name: str) -> float:
        return self.rates.get(name, 0.0)

    def is_asked(self, name: str) -> bool:
        return name in self.waiting or self.rate(name) > 0


Placement = Mapping[str, frozenset[str]]
"""By host: the adapters it is to hold."""
