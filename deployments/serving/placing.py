"""Finds room for pending role replicas and starts them: all placement groups of a gang, or none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from hekla.deployments.engine_reading import with_entry_address
from hekla.deployments.engine_status import failed, pending, started
from hekla.deployments.launch import SUPERVISOR_TARGET
from hekla.deployments.naming import actor_name, engine_name, placement_group_name, replica_name
from hekla.deployments.placement import PlacedUnit, held_by, plan_units
from hekla.deployments.serving.engine_store import EngineStore
from hekla.platform.api.meta import Json
from hekla.platform.base.clock import Clock, rfc3339
from hekla.platform.base.errors import HeklaError
from hekla.platform.base.ids import Ids
from hekla.platform.cluster.interface import ActorSpec, Bundle, Cluster, Node, NoRoom

logger = logging.getLogger(__name__)

PLACE_TIMEOUT_S = 15.0
"""Ray retries a pinned group about once a second: when it can't place what the plan found room for, the plan is old."""
PLACE_RETRY_S = 5.0
"""After such a failure the gang waits: the cluster knows something that its own account does not say yet."""
NODE_IP_VARIABLE = "HEKLA_NODE_IP"
NODE_NAME_VARIABLE = "HEKLA_NODE_NAME"
"""They tell a supervisor which address of its node to serve on, and what to call the node."""


@dataclass(frozen=True)
class Target:
    """What an engine's actor runs."""

    supervisor: str = SUPERVISOR_TARGET
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the actor's environment: what the platform's settings mean on every node."""


class Placer:
    """Serialises planning, so that two gangs never plan on the same room; creation itself runs side by side."""

    def __init__(self, engines: EngineStore, cluster: Cluster, clock: Clock, ids: Ids, target: Target) -> None:
        self._engines = engines
        self._cluster = cluster
        self._clock = clock
        self._ids = ids
        self._target = target
        self._planning = asyncio.Lock()
        self._reserved: dict[str, tuple[PlacedUnit, ...]] = {}
        self._refused: dict[str, tuple[float, str]] = {}
        """By engine uid of a gang's first entry: until when it waits, and why."""

    async def place(self, units: list[list[Json]]) -> str:
        """Place and start these role replicas together. Returns why they could not be placed, or nothing."""
        ticket, first = self._ids.uid(), str(units[0][0]["metadata"]["uid"])
        until, why = self._refused.pop(first, (0.0, ""))
        if self._clock.monotonic() < until:
            self._refused[first] = (until, why)
            return why
        async with self._planning:
            nodes = {node.node_id: node for node in await self._cluster.nodes()}
            found = plan_units(list(nodes.values()), self._held(), units)
            if isinstance(found, str):
                self._say_pending(units, found)
                return found
            self._reserved[ticket] = found
        try:
            refusal = await self._create(found, units, nodes)
        finally:
            del self._reserved[ticket]
        if refusal:
            now = self._clock.monotonic()
            self._refused = {uid: kept for uid, kept in self._refused.items() if kept[0] > now}
            self._refused[first] = (now + PLACE_RETRY_S, refusal)
            self._say_pending(units, refusal)
        return refusal

    async def restart(self, engine: Json) -> None:
        """Start a failed engine again in its bundle, under a new actor name."""
        await self._cluster.stop_actor(actor_name(engine))
        restarts = (engine.get("status") or {}).get("restarts", 0) + 1
        fresh = self._engines.set_status(engine, lambda old: started(old, self._now(), restarts=restarts))
        if fresh is not None:
            nodes = {node.node_id: node for node in await self._cluster.nodes()}
            await self._start(fresh, self._entry_of(fresh), nodes)

    def _held(self) -> list[PlacedUnit]:
        return [*held_by(self._engines.all()), *(unit for units in self._reserved.values() for unit in units)]

    def _say_pending(self, units: list[list[Json]], why: str) -> None:
        for engine in (engine for unit in units for engine in unit):
            self._engines.set_status(engine, lambda old: {**old, **pending(why)})

    async def _create(self, found: tuple[PlacedUnit, ...], units: list[list[Json]], nodes: Mapping[str, Node]) -> str:
        groups = [placement_group_name(_namespace(unit), _unit_name(unit), self._ids.uid()) for unit in units]
        outcomes = await asyncio.gather(
            *(self._reserve(group, placed) for group, placed in zip(groups, found, strict=True)), return_exceptions=True
        )
        problems = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if problems:
            await asyncio.gather(*(self._cluster.remove_placement_group(group) for group in groups))
            if isinstance(problems[0], NoRoom):
                # The error names a group of this one attempt; what is said has to stay the same at the next.
                return f"the cluster did not place it within {PLACE_TIMEOUT_S:g} s although it reported room"
            raise problems[0]
        for group, placed, unit in zip(groups, found, units, strict=True):
            self._assign(group, placed, unit)
        for unit in units:
            await self._start_unit(unit, nodes)
        return ""

    async def _reserve(self, group: str, placed: PlacedUnit) -> None:
        bundles = [Bundle(share.resources, share.node_id) for share in placed]
        await self._cluster.create_placement_group(group, bundles, PLACE_TIMEOUT_S)

    def _assign(self, group: str, placed: PlacedUnit, unit: list[Json]) -> None:
        """Written down before any actor starts: after a crash, what is not written here is an orphan."""
        for engine, share in zip(unit, placed, strict=True):
            self._engines.set_spec(engine, placementGroup=group, node=share.node_id)
            self._engines.set_status(engine, lambda old: started(old, self._now()))

    async def _start_unit(self, unit: list[Json], nodes: Mapping[str, Node]) -> None:
        present = [found for engine in unit if (found := self._engines.again(engine)) is not None]
        for engine in present:
            await self._start(engine, present[0], nodes)

    def _entry_of(self, engine: Json) -> Json:
        meta = engine["metadata"]
        name = engine_name(_unit_name([engine]), 0)
        same = [found for found in self._engines.all() if found["metadata"]["name"] == name]
        return next((found for found in same if found["metadata"]["namespace"] == meta["namespace"]), engine)

    async def _start(self, engine: Json, entry: Json, nodes: Mapping[str, Node]) -> None:
        spec = engine["spec"]
        here, entry_node = nodes.get(spec["node"]), nodes.get(entry["spec"]["node"])
        launch = spec["launch"]
        if launch.get("groupSize", 1) > 1:
            launch = with_entry_address(launch, entry_node.address if entry_node else "", actor_name(entry))
        actor = ActorSpec(
            name=actor_name(engine),
            target=self._target.supervisor,
            kwargs={"launch": launch},
            placement_group=spec["placementGroup"],
            bundle=spec["bundle"],
            env={
                **self._target.env,
                **({NODE_IP_VARIABLE: here.address, NODE_NAME_VARIABLE: here.name} if here else {}),
            },
        )
        try:
            await self._cluster.start_actor(actor)
        except (HeklaError, ValueError) as error:
            reason = f"its supervisor could not be started: {error}"
            logger.warning("%s: %s", engine["metadata"]["name"], reason)
            self._engines.set_status(engine, lambda old: failed(old, reason, self._now()))

    def _now(self) -> str:
        return rfc3339(self._clock.now())

    def __repr__(self) -> str:
        return f"Placer({len(self._reserved)} gangs on their way)"


def _namespace(unit: list[Json]) -> str:
    return str(unit[0]["metadata"]["namespace"])


def _unit_name(unit: list[Json]) -> str:
    spec = unit[0]["spec"]
    return replica_name(spec["serving"], spec["group"], spec["role"], spec["roleReplica"])
