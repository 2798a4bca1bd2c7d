"""Which engines get no traffic for a while, and which get less: every engine's breaker, latency and age, and the pool's say.

Pure but for the engines' load, where the outcome is written (`EngineLoad.ejected`, `EngineLoad.warmup_share`): the filter and
the cost that read it know nothing of breakers. A pool may only lose a share of its engines: when nearly all of them fail, the
reason is elsewhere, and a pool of half its size would fail as well. What a replica knows it has seen itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hekla.routing.backend import Backend, ModelServer
from hekla.routing.load import EngineLoad
from hekla.routing.traffic.breaker import Breaker, State
from hekla.routing.traffic.latency import Latency, is_outlier
from hekla.routing.traffic.settings import EjectionSettings, SlowStartSettings
from hekla.routing.traffic.slow_start import share

Count = Callable[[str, str], None]
"""Called with a ModelServer's name and what happened: `ejected`, `probing`, `recovered`."""


SAME_EJECTION_S = 1.0
"""A peer's ejection that ends no later than this after one heard before is the same, told again."""


class EngineHealth:
    """What is known of one engine."""

    __slots__ = ("breaker", "heard_until_s", "latency", "since_s", "told_until_s", "url")

    def __init__(self, url: str, since_s: float) -> None:
        self.url, self.since_s = url, since_s
        """An engine is new when its address is."""
        self.breaker, self.latency = Breaker(), Latency()
        self.told_until_s = self.heard_until_s = float("-inf")
        """Ends of the last ejections: this replica's own, and what a peer told."""


class Verdict:
    """What one try says of its engine. Exactly one of `answered`, `failed` and `end` decides about a probe; a stream that
    has answered may still fail. Every other call does nothing.
    """

    __slots__ = ("_book", "_engine", "_forecast_s", "_is_probe", "_server", "_started_s", "failed_already")

    def __init__(
        self, book: HealthBook, server: ModelServer, engine: str, started_s: float, forecast_s: float | None
    ) -> None:
        self._book, self._server, self._engine = book, server, engine
        self._started_s, self._forecast_s = started_s, forecast_s
        self._is_probe = book.probe_begins(engine)
        self.failed_already = False

    def answered(self, now_s: float) -> None:
        """The first byte has come."""
        self.end()
        latency = (now_s - self._started_s, self._forecast_s)
        self._book.succeeded(self._server, self._engine, now_s, latency=latency)

    def failed(self, now_s: float) -> None:
        self.end()
        if not self.failed_already:
            self.failed_already = True
            self._book.failed(self._server, self._engine, now_s)

    def end(self) -> None:
        """The try is over: without a verdict when there was none, as when its client left."""
        if self._is_probe:
            self._is_probe = False
            self._book.probe_ends(self._engine)


class HealthBook:
    def __init__(
        self,
        ejection: EjectionSettings,
        slow_start: SlowStartSettings,
        load: Callable[[str], EngineLoad],
        count: Count = lambda server, event: None,
    ) -> None:
        self._ejection, self._slow_start, self._load, self._count = ejection, slow_start, load, count
        self._engines: dict[str, EngineHealth] = {}
        self._marked: set[str] = set()
        """Engines whose load says something other than the normal: ejected, or warming."""
        self._has_table = False

    def took_engines(self, backends: Iterable[Backend], now_s: float) -> None:
        """These are in the table now. Those of the first table are not new: this replica is."""
        since_s = now_s if self._has_table else float("-inf")
        known = {backend.key: backend.url for backend in backends}
        for gone in self._engines.keys() - known.keys():
            self._forget(gone)
        for key, url in known.items():
            health = self._engines.get(key)
            if health is None or health.url != url:
                self._forget(key)
                self._engines[key] = EngineHealth(url, since_s)
                if self._slow_start.window_s and since_s > float("-inf"):
                    self._marked.add(key)
        self._has_table = True

    def use(self, ejection: EjectionSettings, slow_start: SlowStartSettings) -> None:
        """Other settings from the next try on; an ejection under way keeps its end."""
        self._ejection, self._slow_start = ejection, slow_start

    def mark(self, server: ModelServer, now_s: float) -> None:
        """Write what holds now into the load of the server's engines; before each decision."""
        if not self._marked:
            return
        for pool in pools_of(server):
            marked = [key for key in pool if key in self._marked]
            if marked:
                self._mark_pool(server, pool, marked, now_s)

    def begin(self, server: ModelServer, engine: str, now_s: float, forecast_s: float | None = None) -> Verdict:
        """A try on `engine` begins, whose first byte is forecast to take `forecast_s`."""
        return Verdict(self, server, engine, now_s, forecast_s)

    def state(self, engine: str) -> State:
        health = self._engines.get(engine)
        return State.CLOSED if health is None else health.breaker.state

    def states(self, now_s: float) -> dict[str, dict[str, Any]]:
        """Every engine that is not simply well, for people."""
        return {
            key: {
                "state": health.breaker.state.value, "ejections": health.breaker.ejections,
                "failures_in_a_row": health.breaker.in_a_row, "back_in_s": max(0.0, health.breaker.until_s - now_s),
            }
            for key, health in self._engines.items()
            if key in self._marked or health.breaker.in_a_row
        }  # fmt: skip

    def own_ejections(self, now_s: float) -> dict[str, float]:
        """Engines that this replica itself has ejected, and for how many seconds still: news for its peers."""
        own = ((key, self._engines[key].told_until_s - now_s) for key in self._marked)
        return {key: left_s for key, left_s in own if left_s > 0}

    def hear(self, engine: str, left_s: float, now_s: float) -> None:
        """A peer has ejected the engine for so long. Told again and again, it counts once."""
        health = self._engines.get(engine)
        until_s = now_s + min(left_s, self._ejection.max_s)
        if health is None or not self._ejection.enabled or until_s < health.heard_until_s + SAME_EJECTION_S:
            return
        health.heard_until_s = until_s
        if health.breaker.hear(until_s):
            self._marked.add(engine)

    def succeeded(
        self, server: ModelServer, engine: str, now_s: float, *, latency: tuple[float, float | None] | None = None
    ) -> None:
        health = self._engines.get(engine)
        if health is None:
            return
        settings, before = self.settings_of(server), health.breaker.state
        health.breaker.succeeded(now_s, settings)
        if before is State.PROBING and health.breaker.state is State.CLOSED:
            health.latency = Latency()
            self._count(server.name, "recovered")
        elif settings.latency_factor and latency is not None and before is State.CLOSED:
            health.latency.add(*latency)
            self._judge_latency(server, engine, settings, now_s)

    def failed(self, server: ModelServer, engine: str, now_s: float) -> None:
        settings, health = self.settings_of(server), self._engines.get(engine)
        if health is not None and settings.enabled and health.breaker.failed(now_s, settings):
            self._ejected(server, engine)

    def probe_begins(self, engine: str) -> bool:
        health = self._engines.get(engine)
        if health is None or health.breaker.state is not State.PROBING:
            return False
        health.breaker.probes += 1
        return True

    def probe_ends(self, engine: str) -> None:
        health = self._engines.get(engine)
        if health is not None:
            health.breaker.probes = max(0, health.breaker.probes - 1)

    def settings_of(self, server: ModelServer) -> EjectionSettings:
        return merged(self._ejection, server.ejection) if server.ejection else self._ejection

    def check(self) -> None:
        """Invariants: only known engines are marked, and nobody probes a closed breaker."""
        assert self._marked <= self._engines.keys(), f"marked but unknown: {self._marked - self._engines.keys()}"
        for key, health in self._engines.items():
            assert health.breaker.probes >= 0, key

    def _judge_latency(self, server: ModelServer, engine: str, settings: EjectionSettings, now_s: float) -> None:
        pool = next((pool for pool in pools_of(server) if engine in pool), ())
        own = self._engines[engine]
        siblings = [self._engines[key].latency for key in pool if key != engine and key in self._engines]
        samples_min = settings.latency_samples_min
        if is_outlier(own.latency, siblings, factor=settings.latency_factor, samples_min=samples_min):
            own.latency = Latency()
            own.breaker.eject(now_s, settings)
            self._ejected(server, engine)

    def _ejected(self, server: ModelServer, engine: str) -> None:
        self._marked.add(engine)
        self._engines[engine].told_until_s = self._engines[engine].breaker.until_s
        self._count(server.name, "ejected")

    def _mark_pool(self, server: ModelServer, pool: Sequence[str], marked: list[str], now_s: float) -> None:
        settings = self.settings_of(server)
        refused = [key for key in marked if self._is_refused(server, key, settings, now_s)]
        allowed = min(len(pool) - 1, int(len(pool) * settings.pool_percent_max / 100))
        # Those whose time is over first go back first when the pool can't spare them all.
        refused.sort(key=lambda key: -self._engines[key].breaker.until_s)
        out = set(refused[:allowed]) if settings.enabled else set()
        for key in marked:
            load, health = self._load(key), self._engines[key]
            load.ejected = key in out
            load.warmup_share = share(now_s - health.since_s, self._slow_start)
            if health.breaker.state is State.CLOSED and load.warmup_share == 1:
                self._marked.discard(key)

    def _is_refused(self, server: ModelServer, key: str, settings: EjectionSettings, now_s: float) -> bool:
        breaker = self._engines[key].breaker
        before = breaker.state
        breaker.tick(now_s)
        if before is State.OPEN and breaker.state is State.PROBING:
            self._count(server.name, "probing")
        return breaker.state is State.OPEN or (breaker.state is State.PROBING and breaker.probes >= settings.probes_max)

    def _forget(self, key: str) -> None:
        if self._engines.pop(key, None) is not None and key in self._marked:
            self._marked.discard(key)
            load = self._load(key)
            load.ejected, load.warmup_share = False, 1.0

    def __repr__(self) -> str:
        states = {key: health.breaker for key, health in self._engines.items() if key in self._marked}
        return f"HealthBook({len(self._engines)} engines, {states})"


def merged(settings: EjectionSettings, own: Mapping[str, Any]) -> EjectionSettings:
    """A ModelServer's own numbers before the ingress's."""
    longest_s = max(own.get("max_s", settings.max_s), own.get("base_s", settings.base_s))
    return dataclasses.replace(settings, **{**own, "max_s": longest_s})


def pools_of(server: ModelServer) -> list[list[str]]:
    """The engines that stand in for each other: all, or those that prefill and those that decode."""
    if server.groups is None:
        return [[backend.key for backend in server.backends]]
    groups = list(server.groups.values())
    return [[b.key for group in groups for b in group.prefill], [b.key for group in groups for b in group.decode]]
