"""How many engines should hold each adapter. Pure.

An adapter with a share p of the pool's requests needs p × H of its H engines to carry them when all are full; it gets
`SPREAD` times as many, so that there is a choice. One that nobody asks for needs none, but keeps what it has while no
other wants the place. Fewer replicas than before are wanted only when that has been so for `SHRINK_AFTER_S`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hekla.deployments.lora.model import Adapter, Demand

SPREAD = 2.0
"""Two engines to choose between is what takes most of the imbalance out of random arrivals (power of two choices)."""
WORTH_REQUESTS_PER_S = 0.5
"""A second engine is worth its load from this rate on: below it the requests hardly meet, and one cache serves all."""
SHRINK_AFTER_S = 120.0
"""Two time constants of the rate: a lull that is shorter unloads nothing."""


def wanted_replicas(adapter: Adapter, demand: Demand, hosts: int) -> int:
    """What the rates of this moment ask for."""
    if not hosts:
        return 0
    rate = demand.rate(adapter.name)
    share = rate / demand.total if demand.total > 0 else 0.0
    by_load = math.ceil(SPREAD * share * hosts) if rate >= WORTH_REQUESTS_PER_S else 0
    return adapter.capped(max(by_load, 1 if demand.is_asked(adapter.name) else 0), hosts)


@dataclass
class Targets:
    """Wanted replicas over time: up at once, down late."""

    _since: dict[str, tuple[int, float]] = field(default_factory=dict)
    """By adapter: the lower number wanted, and since when nothing higher was."""
    _held: dict[str, int] = field(default_factory=dict)

    def of(self, adapters: Iterable[Adapter], demand: Demand, hosts: int, now_s: float) -> Mapping[str, int]:
        found = {}
        for adapter in adapters:
            now_wanted = wanted_replicas(adapter, demand, hosts)
            found[adapter.name] = self._steadied(adapter, now_wanted, hosts, now_s)
        self._held = dict(found)
        self._since = {name: since for name, since in self._since.items() if name in found}
        return found

    def _steadied(self, adapter: Adapter, wanted: int, hosts: int, now_s: float) -> int:
        name, held = adapter.name, min(self._held.get(adapter.name, 0), hosts)
        held = adapter.capped(held, hosts)
        if wanted >= held:
            self._since.pop(name, None)
            return wanted
        lower, since_s = self._since.get(name, (wanted, now_s))
        self._since[name] = (max(lower, wanted), since_s)
        if now_s - since_s < SHRINK_AFTER_S:
            return held
        del self._since[name]
        return max(lower, wanted)
