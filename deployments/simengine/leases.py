"""Blocks a prefill engine keeps for a decode engine, for a limited time."""

from __future__ import annotations

from dataclasses import dataclass

from hekla.deployments.simengine.blocks import BlockPool


@dataclass(frozen=True, slots=True)
class Lease:
    blocks: list[int]
    tokens: int
    expires_at: float


class Leases:
    """`lease_s`: seconds after which blocks that nobody pulled are freed."""

    def __init__(self, pool: BlockPool, lease_s: float = 30.0) -> None:
        self._pool = pool
        self._lease_s = lease_s
        self._held: dict[str, Lease] = {}
        self.expired = 0

    def hold(self, request_id: str, blocks: list[int], tokens: int, now: float) -> Lease:
        lease = self._held[request_id] = Lease(blocks, tokens, now + self._lease_s)
        return lease

    def collect(self, request_id: str, now: float) -> int | None:
        """A decode engine has pulled: free the blocks. The tokens they hold, or None for no such (or an old) lease."""
        self.expire(now)
        lease = self._held.pop(request_id, None)
        if lease is None:
            return None
        self._pool.release(lease.blocks)
        return lease.tokens

    def expire(self, now: float) -> None:
        for request_id in [key for key, lease in self._held.items() if lease.expires_at <= now]:
            self._pool.release(self._held.pop(request_id).blocks)
            self.expired += 1

    @property
    def next_expiry(self) -> float | None:
        return min((lease.expires_at for lease in self._held.values()), default=None)

    def __len__(self) -> int:
        return len(self._held)
