"""The LoRA controller: has the engines of each ModelServer hold the adapters that it declares, where they are wanted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hekla.deployments.lora.demand import DemandMeter
from hekla.deployments.lora.failures import FailureBook
from hekla.deployments.lora.model import Adapter, AdapterAsk, Host, Placement
from hekla.deployments.lora.placement import place
from hekla.deployments.lora.reading import (
    FRESH_S,
    HOLDING,
    STALE_S,
    Pool,
    adapters_on,
    is_usable,
    read_host,
    read_pool,
    read_reports,
    selects,
)
from hekla.deployments.lora.status import status_of, without_adapters
from hekla.deployments.lora.targets import Targets
from hekla.deployments.naming import actor_name
from hekla.platform.api.meta import Json, Ref, ref_of
from hekla.platform.base.clock import Clock, rfc3339
from hekla.platform.base.errors import HeklaError, NotFound
from hekla.platform.cluster.interface import Cluster
from hekla.platform.control.interface import Again
from hekla.platform.store.interface import Store

logger = logging.getLogger(__name__)

TICK_S = 5.0
"""How often places are thought over without an event: rates decay, pauses end, adapters may take turns."""
TELL_TIMEOUT_S = 10.0
REPEAT_S = 30.0
"""A supervisor is told again after this long, in case a word was lost."""

Asks = tuple[AdapterAsk, ...]


@dataclass
class _Memory:
    """What is remembered of one ModelServer from one reconcile to the next; all of it can be lost."""

    meter: DemandMeter = field(default_factory=DemandMeter)
    targets: Targets = field(default_factory=Targets)
    failures: FailureBook = field(default_factory=FailureBook)
    since: dict[tuple[str, str], float] = field(default_factory=dict)
    """By host and adapter: since when it has been there."""
    told: dict[str, tuple[Asks, float]] = field(default_factory=dict)
    """By supervisor's actor: what it was told, and when."""


class LoraController:
    """Implements `Controller`. It speaks to engines through their supervisors only."""

    name = "lora"
    kind = "ModelServer"
    watches: tuple[str, ...] = ("Engine",)

    def __init__(self, store: Store, cluster: Cluster, clock: Clock) -> None:
        self._store, self._cluster, self._clock = store, cluster, clock
        self._memories: dict[Ref, _Memory] = {}

    def keys_for(self, obj: Json) -> Iterable[Ref]:
        """The ModelServers whose engine it is, and those that have adapters on it."""
        servers = self._store.list(self.kind, obj["metadata"]["namespace"]).items
        owners = {one.get("owner") for one in adapters_on(obj).values()}
        chosen = {ref_of(server) for server in servers if server["spec"].get("loraAdapters") and selects(server, obj)}
        namespace = obj["metadata"]["namespace"]
        return chosen | {Ref(self.kind, namespace, owner.partition("/")[2]) for owner in owners if owner}

    async def reconcile(self, key: Ref) -> Again | None:
        server = self._find(key)
        engines = [one for one in self._store.list("Engine", key.namespace).items if is_usable(one)]
        if server is None or server["metadata"].get("deletionTimestamp") or not server["spec"].get("loraAdapters"):
            return await self._let_go(key, server, engines)
        memory = self._memories.setdefault(key, _Memory())
        pool, now_s = read_pool(server, engines), self._clock.monotonic()
        self._take_reports(server, memory, now_s)
        self._note_engines(pool, memory, now_s)
        placement = self._placement(pool, memory, now_s)
        await self._tell(pool, placement, engines, memory)
        self._write_status(key, pool, placement, memory)
        due_s = memory.failures.next_due_s(now_s)
        return Again(min(TICK_S, due_s) if due_s is not None else TICK_S)

    def _find(self, key: Ref) -> Json | None:
        try:
            return self._store.get(key)
        except NotFound:
            return None

    async def _let_go(self, key: Ref, server: Json | None, engines: list[Json]) -> Again | None:
        """It declares no adapters any more: those it has on engines are unloaded when nobody uses them."""
        owner = f"{key.namespace}/{key.name}"
        holding = [one for one in engines if any(a.get("owner") == owner for a in adapters_on(one).values())]
        told = self._memories.pop(key, _Memory()).told
        reached = [one for one in engines if actor_name(one) in told or one in holding]
        results = await asyncio.gather(*(self._tell_engine(owner, one, ()) for one in reached))
        if server is not None and (status := without_adapters(server)) != (server.get("status") or {}):
            self._store.update_status({**server, "status": status})
        return None if all(results) else Again(TICK_S)

    def _take_reports(self, server: Json, memory: _Memory, now_s: float) -> None:
        unix_s = self._clock.now()
        for told in read_reports(server):
            is_new = unix_s - told.at_s <= FRESH_S
            counts_all = is_new and unix_s - told.started_s <= FRESH_S
            memory.meter.take(
                told.replica, told.report, now_s, mark=f"{told.at_s}", fresh=is_new, counts_all=counts_all
            )

    def _note_engines(self, pool: Pool, memory: _Memory, now_s: float) -> None:
        """What engines say became of what they were told."""
        uris = {adapter.name: adapter.uri for adapter in pool.adapters}
        memory.failures.keep(uris, pool.hosts)
        seen: dict[tuple[str, str], float] = {}
        for host, engines in pool.hosts.items():
            for name, uri in uris.items():
                states = [adapters_on(engine).get(name, {}) for engine in engines]
                failure = next((one for one in states if one.get("state") == "Failed"), None)
                if failure is not None:
                    memory.failures.note((host, name), uri, failure.get("message", ""), now_s)
                elif all(one.get("state") == "Loaded" for one in states):
                    memory.failures.succeeded((host, name))
                else:
                    memory.failures.not_shown((host, name))
                if any(one.get("state") in HOLDING for one in states):
                    seen[host, name] = memory.since.get((host, name), now_s)
        memory.since = seen
        memory.meter.served(_loaded_somewhere(pool))

    def _placement(self, pool: Pool, memory: _Memory, now_s: float) -> Placement:
        hosts = [self._host(key, pool, memory, now_s) for key in pool.hosts]
        demand = memory.meter.demand(pool.names, now_s)
        targets = memory.targets.of(pool.adapters, demand, len(hosts), now_s)
        return place(pool.adapters, hosts, targets, demand, now_s)

    def _host(self, key: str, pool: Pool, memory: _Memory, now_s: float) -> Host:
        since = {name: at_s for (host, name), at_s in memory.since.items() if host == key}
        return read_host(key, pool.hosts[key], pool.owner, since, memory.failures.barred(key, now_s))

    async def _tell(self, pool: Pool, placement: Placement, engines: list[Json], memory: _Memory) -> None:
        wanted = _asks(pool.adapters, placement)
        chosen = {actor_name(engine): wanted[host] for host, members in pool.hosts.items() for engine in members}
        by_actor = {actor_name(engine): engine for engine in engines}
        # An engine that the selector finds no more gives back what it got.
        left = [
            actor for actor, engine in by_actor.items()
            if actor not in chosen and any(one.get("owner") == pool.owner for one in adapters_on(engine).values())
        ]  # fmt: skip
        chosen |= dict.fromkeys(left, ())
        memory.told = {actor: told for actor, told in memory.told.items() if actor in by_actor}
        due = [actor for actor, asks in chosen.items() if self._is_due(by_actor[actor], asks, memory)]
        results = await asyncio.gather(*(self._tell_engine(pool.owner, by_actor[a], chosen[a]) for a in due))
        for actor, has_heard in zip(due, results, strict=True):
            if has_heard:
                memory.told[actor] = (chosen[actor], self._clock.monotonic())

    def _is_due(self, engine: Json, asks: Asks, memory: _Memory) -> bool:
        told = memory.told.get(actor_name(engine))
        return told is None or told[0] != asks or self._clock.monotonic() - told[1] >= REPEAT_S

    async def _tell_engine(self, owner: str, engine: Json, asks: Asks) -> bool:
        """Whether it has heard."""
        actor = actor_name(engine)
        wanted = [ask.model_dump() for ask in asks]
        try:
            await self._cluster.call(actor, "set_adapters", owner, wanted, timeout_s=TELL_TIMEOUT_S)
        except (HeklaError, ValueError) as error:
            logger.info("%s could not be told its adapters: %s", actor, error)
            return False
        return True

    def _write_status(self, key: Ref, pool: Pool, placement: Placement, memory: _Memory) -> None:
        server = self._find(key)
        if server is None:
            return
        failures = {name: found for name in pool.names if (found := memory.failures.messages(name))}
        status = status_of(server, pool, placement, failures, rfc3339(self._clock.now()))
        demand = status.get("loraDemand") or {}
        oldest = self._clock.now() - STALE_S
        if silent := {told.replica for told in read_reports(server) if told.at_s < oldest}:
            status["loraDemand"] = {replica: told for replica, told in demand.items() if replica not in silent}
        if status != server.get("status"):
            self._store.update_status({**server, "status": status})

    def __repr__(self) -> str:
        return f"LoraController({len(self._memories)} ModelServers with adapters)"


def _loaded_somewhere(pool: Pool) -> set[str]:
    """Adapters that some host has as a whole."""
    found = set()
    for engines in pool.hosts.values():
        states = [adapters_on(engine) for engine in engines]
        found |= {name for name in states[0] if all(s.get(name, {}).get("state") == "Loaded" for s in states)}
    return found


def _asks(adapters: Iterable[Adapter], placement: Placement) -> Mapping[str, Asks]:
    by_name = {adapter.name: adapter for adapter in adapters}
    return {
        host: tuple(AdapterAsk(name=name, uri=by_name[name].uri) for name in sorted(names))
        for host, names in placement.items()
    }
