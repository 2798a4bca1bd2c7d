"""How an ingress replica finds the platform: by the actor's name, asked again whenever the last answer fails."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from hekla.platform.base.clock import Clock
from hekla.platform.base.errors import Unavailable
from hekla.platform.root.ingress_peers import PEER_ANNOUNCE_S
from hekla.platform.root.platform_actor import find_platform_actor

logger = logging.getLogger(__name__)

LOOK_UP_TIMEOUT_S = 10.0


class PlatformLink:
    """Keeps the resource API's URL and the other ingress replicas' gossip addresses current.

    `url` is None while the platform is away; the ingress then serves on with its last routing table.
    """

    def __init__(self, ray_namespace: str, clock: Clock) -> None:
        self._namespace = ray_namespace
        self._clock = clock
        self.url: str | None = None
        self.token = ""
        self.peers: list[tuple[str, int]] = []

    async def look_up(self) -> Any:
        """Ask the actor for the URL; returns its handle. Raises Unavailable."""
        try:
            async with asyncio.timeout(LOOK_UP_TIMEOUT_S):
                actor = await asyncio.to_thread(find_platform_actor, self._namespace)
                if actor is None:
                    raise Unavailable("the platform actor is not there")
                self.token = str(await actor.api_token.remote())
                self.url = str(await actor.api_url.remote())
                return actor
        except Unavailable:
            self.url = None
            raise
        except Exception as error:
            # Whatever Ray raises (actor died, GCS away, timeout), the answer is the same: not now.
            self.url = None
            raise Unavailable(f"the platform does not answer: {error}") from error

    async def stay_known(self, replica: str, host: str, port: int) -> None:
        """Announce this replica for ever, learning the peers and a restarted platform's new URL on the way."""
        while True:
            try:
                actor = await self.look_up()
                answer = await actor.announce_ingress.remote(replica, host, port)
                self.peers = [(str(peer[0]), int(peer[1])) for peer in answer]
            except Exception as error:  # noqa: BLE001 -- for ever, whatever the platform's state; it is logged
                logger.info("announcing to the platform failed, will try again: %s", error)
            await self._clock.sleep(PEER_ANNOUNCE_S)
