"""Circuit breakers of providers. Pure: the time is an argument."""

from __future__ import annotations

from hekla.routing.traffic.breaker import Breaker, State
from hekla.routing.traffic.settings import EjectionSettings


class ProviderHealth:
    """Says which providers get no requests for now. Only a request that has another target to go to is kept from one."""

    def __init__(self, settings: EjectionSettings) -> None:
        self._settings = settings
        self._breakers: dict[str, Breaker] = {}

    def keep_only(self, keys: frozenset[str]) -> None:
        for gone in self._breakers.keys() - keys:
            del self._breakers[gone]

    def is_ejected(self, key: str, now_s: float) -> bool:
        breaker = self._breakers.get(key)
        if breaker is None or not self._settings.enabled:
            return False
        breaker.tick(now_s)
        is_probed = breaker.state is State.PROBING and breaker.probes >= self._settings.probes_max
        return breaker.state is State.OPEN or is_probed

    def begin(self, key: str) -> Breaker:
        """A request goes to the provider; tell `end` of it."""
        breaker = self._breakers.setdefault(key, Breaker())
        breaker.probes += breaker.state is State.PROBING
        return breaker

    def end(self, breaker: Breaker, now_s: float, outcome: bool | None) -> None:
        """`outcome`: it answered, it failed, or (None) nobody knows: the client left."""
        breaker.probes = max(0, breaker.probes - 1)
        if outcome is not None and self._settings.enabled:
            (breaker.succeeded if outcome else breaker.failed)(now_s, self._settings)

    def state(self, key: str) -> State:
        breaker = self._breakers.get(key)
        return State.CLOSED if breaker is None else breaker.state
