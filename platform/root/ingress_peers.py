"""Who the ingress replicas are: each says so every few seconds, and learns of the others in the answer."""

from __future__ import annotations

from hekla.platform.base.clock import Clock

PEER_EXPIRY_S = 10.0
"""A replica that said nothing for this long is gone: five missed announcements."""

PEER_ANNOUNCE_S = 2.0


class IngressPeers:
    """The live replicas' gossip addresses. Held by the platform actor; lost with it, and rebuilt in one round."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[str, int, float]] = {}

    def announce(self, replica: str, host: str, port: int) -> list[tuple[str, int]]:
        """Note that `replica` listens for gossip at host:port; returns the other live replicas' addresses."""
        now = self._clock.monotonic()
        self._seen[replica] = (host, port, now)
        self._seen = {name: seen for name, seen in self._seen.items() if now - seen[2] <= PEER_EXPIRY_S}
        return sorted((host, port) for name, (host, port, _) in self._seen.items() if name != replica)
