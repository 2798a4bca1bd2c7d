"""The providers there are, kept current from the resource API."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from hekla.platform.api.meta import Json
from hekla.platform.base.clock import Clock
from hekla.platform.base.ids import Ids
from hekla.routing.config import WatchSettings
from hekla.routing.external.provider import Name, Resolved, resolved
from hekla.routing.following import Follower, Objects
from hekla.routing.source import ObjectSource

logger = logging.getLogger(__name__)

KINDS = ("ExternalModelProvider", "Secret")


class ProviderBook:
    """`get` says what became of a provider. The last picture stays while the resource API is away."""

    def __init__(self, source: ObjectSource, settings: WatchSettings, *, clock: Clock, ids: Ids) -> None:
        self._follower = Follower(
            "external-providers", KINDS, source, settings, clock=clock, ids=ids, build=self._build
        )
        self._found: Mapping[Name, Resolved] | None = None

    @property
    def is_read(self) -> bool:
        return self._found is not None

    def get(self, name: Name) -> Resolved | None:
        """None when there is no such provider."""
        return (self._found or {}).get(name)

    def names(self) -> frozenset[Name]:
        return frozenset(self._found or ())

    async def start(self) -> None:
        await self._follower.start()

    async def stop(self) -> None:
        await self._follower.stop()

    def _build(self, objects: Objects) -> None:
        secrets = {_name(obj): obj for obj in objects["Secret"].values()}
        found = {_name(obj): resolved(obj, secrets) for obj in objects["ExternalModelProvider"].values()}
        for name, one in found.items():
            known = self.get(name)
            if not one.ready.holds and (known is None or known.ready != one.ready):
                logger.warning("external provider %s/%s: %s: %s", *name, one.ready.reason, one.ready.message)
        self._found = found

    def __repr__(self) -> str:
        ready = sum(one.ready.holds for one in (self._found or {}).values())
        return f"ProviderBook({ready} of {len(self._found or ())} ready)"


def _name(obj: Json) -> Name:
    return (obj["metadata"].get("namespace") or "default", obj["metadata"]["name"])
