"""Time as an argument. Only the composition root makes a `SystemClock`; tests make a `VirtualClock`."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Unix time in seconds."""

    def monotonic(self) -> float:
        """Seconds that never go backwards; only differences mean anything."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of this clock's time."""


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class VirtualClock:
    """A clock that stands still until `advance` moves it, waking sleepers in the order of their deadlines."""

    def __init__(self, start: float = 1_750_000_000.0) -> None:
        self._now = start
        self._start = start
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now - self._start

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Move time forward; every sleeper due on the way runs until all tasks wait again."""
        deadline = self._now + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= deadline:
            due, _, woken = heapq.heappop(self._sleepers)
            self._now = max(self._now, due)
            if not woken.done():
                woken.set_result(None)
                await settle()
        self._now = deadline
        await settle()

    def __repr__(self) -> str:
        return f"VirtualClock(t={self.monotonic():.3f}s, sleepers={len(self._sleepers)})"


async def settle(turns: int = 50) -> None:
    """Let every ready task run: a bounded number of turns of the event loop."""
    for _ in range(turns):
        await asyncio.sleep(0)


def rfc3339(unix_s: float) -> str:
    """`2026-11-22T04:00:00Z`, the resource API's time format (whole seconds, UTC)."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_rfc3339(text: str) -> float:
    """Unix seconds of an RFC 3339 time; raises ValueError."""
    return datetime.fromisoformat(text).timestamp()
