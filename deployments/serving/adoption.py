"""After a restart: what runs and has an object is kept, what runs without one is removed. The decision is pure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from hekla.deployments.naming import CLUSTER_PREFIX, actor_name
from hekla.platform.api.meta import Json
from hekla.platform.cluster.interface import Cluster

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Orphans:
    actors: tuple[str, ...]
    placement_groups: tuple[str, ...]


def orphans(engines: Iterable[Json], actors: Iterable[str], groups: Iterable[str]) -> Orphans:
    """What is ours by its name and belongs to no Engine object."""
    known = list(engines)
    wanted_actors = {actor_name(engine) for engine in known}
    wanted_groups = {engine["spec"].get("placementGroup") for engine in known}
    return Orphans(
        tuple(sorted(name for name in actors if name.startswith(CLUSTER_PREFIX) and name not in wanted_actors)),
        tuple(sorted(name for name in groups if name.startswith(CLUSTER_PREFIX) and name not in wanted_groups)),
    )


async def remove_orphans(cluster: Cluster, engines: Iterable[Json]) -> Orphans:
    """Only before any reconcile: a gang on its way has placement groups that no object names yet."""
    found = orphans(engines, await cluster.actors(), await cluster.placement_groups())
    for name in (*found.actors, *found.placement_groups):
        logger.warning("%s belongs to no engine and is removed", name)
    await asyncio.gather(*(cluster.stop_actor(name) for name in found.actors))
    await asyncio.gather(*(cluster.remove_placement_group(name) for name in found.placement_groups))
    return found
