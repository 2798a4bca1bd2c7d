"""Replicas tell each other which blocks of text they sent where. Pure; the gossip carries `Told`s.

A block is told once, and again only after `RETOLD_S`: conversations and shared system prompts repeat their beginnings
with every request, and only what is new is news. What is above the allowed rate is dropped, oldest first: a peer then
misses a prompt's home, and places it by load. Nobody waits for any of it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from hekla.routing.prefix.approximate import ApproximateIndex, RouteRecord

RETOLD_S = 10.0
"""A block told longer ago is told again: the datagram may have been lost, and the peer's own memory is least recently used."""
RECORDS_MAX = 1024
"""Routes taken over from the index at once."""
REMEMBERED_MAX = 200_000
"""Blocks remembered as told."""
BURST_S = 0.5
"""Bytes saved up, in seconds of the rate."""
BLOCK_BYTES = 8
_ENTRY_BYTES = 8
"""Around an entry's name and blocks."""


class Told(NamedTuple):
    """Part of a prompt that went to an engine."""

    engine: str
    blocks: bytes


class RouteSharing:
    """`known` gives the engines of the present routing table: news of others is passed over."""

    def __init__(self, index: ApproximateIndex, known: Callable[[], Iterable[str]], *, bytes_per_s: int) -> None:
        self._index, self._known, self._rate = index, known, bytes_per_s
        self._since = 0
        self._pending: deque[RouteRecord] = deque()
        self._told: OrderedDict[tuple[str, bytes], float] = OrderedDict()
        self._credit, self._updated_s = bytes_per_s * BURST_S, 0.0
        self.dropped = 0
        """Routes that the rate did not allow."""

    def news(self, now_s: float, room: int) -> list[Told]:
        """What fits into `room` bytes of a datagram; empty when there is nothing new, or no more is allowed now."""
        if not self._rate:
            return []
        elapsed_s = max(0.0, now_s - self._updated_s)
        self._updated_s = now_s
        self._credit = min(self._rate * BURST_S, self._credit + self._rate * elapsed_s)
        entries: list[Told] = []
        while self._credit > 0 and room > _ENTRY_BYTES + BLOCK_BYTES:
            if not self._pending and not self._fetch():
                break
            record = self._pending[0]
            told, is_whole = self._part(record, room, now_s)
            if told is not None:
                size = len(told.engine) + len(told.blocks) + _ENTRY_BYTES
                room, self._credit = room - size, self._credit - size
                entries.append(told)
            if not is_whole:
                break  # the rest of it goes into the next datagram
            self._pending.popleft()
        return entries

    def _fetch(self) -> bool:
        """Takes over what the index has put down since the last time; False when that is nothing."""
        fresh = self._index.export(self._since, RECORDS_MAX)
        if fresh:
            self.dropped += fresh[0].sequence - self._since - 1
            self._since = fresh[-1].sequence
            self._pending.extend(fresh)
        return bool(fresh)

    def hear(self, entries: Iterable[Told], now_s: float) -> None:
        """A peer's news."""
        self._index.merge((RouteRecord(0, entry.engine, entry.blocks) for entry in entries), self._known())

    def _part(self, record: RouteRecord, room: int, now_s: float) -> tuple[Told | None, bool]:
        """As many of the route's blocks as are news and fit, and whether that was all of them."""
        room_blocks = (room - _ENTRY_BYTES - len(record.engine.encode())) // BLOCK_BYTES
        fresh = bytearray()
        for start in range(0, len(record.blocks), BLOCK_BYTES):
            block = record.blocks[start : start + BLOCK_BYTES]
            if now_s - self._told.get((record.engine, block), float("-inf")) < RETOLD_S:
                continue
            if len(fresh) // BLOCK_BYTES >= room_blocks:
                return (Told(record.engine, bytes(fresh)) if fresh else None), False
            fresh += block
            self._remember((record.engine, block), now_s)
        return (Told(record.engine, bytes(fresh)) if fresh else None), True

    def _remember(self, key: tuple[str, bytes], now_s: float) -> None:
        self._told[key] = now_s
        self._told.move_to_end(key)
        if len(self._told) > REMEMBERED_MAX:
            self._told.popitem(last=False)

    def __repr__(self) -> str:
        return f"RouteSharing(told={len(self._told)}, dropped={self.dropped})"
