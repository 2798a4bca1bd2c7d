"""Asks prefill engines' bootstrap servers for the engine's id, once, and remembers it while the engine stays."""

from __future__ import annotations

from typing import Protocol

import msgspec

from hekla.platform.base.clock import Clock
from hekla.platform.base.errors import Unavailable
from hekla.routing.backend import Backend
from hekla.routing.connectors.interface import host_of, in_url
from hekla.routing.pairs.settings import DisaggregationSettings

PAGE_BYTES_MAX = 2**20
ENGINES_MAX = 4096


class Page(Protocol):
    async def __call__(self, url: str, *, timeout_s: float, bytes_max: int) -> bytes:
        """The body at a URL. Raises Unavailable."""


class _Entry(msgspec.Struct):
    engine_id: str


class Bootstraps:
    """Mooncake's `/query`: `{"<data-parallel rank>": {"engine_id": …, "worker_addr": …}}`."""

    def __init__(self, page: Page, settings: DisaggregationSettings, clock: Clock) -> None:
        self._page, self._settings, self._clock = page, settings, clock
        self._known: dict[tuple[str, int], dict[int, str]] = {}
        """By the engine's URL, which a restarted engine has anew, and port."""
        self._absent: dict[tuple[str, int], float] = {}
        """Until when those without one are not asked again."""

    async def engine_id(self, backend: Backend, port: int, rank: int) -> str:
        """Empty when it has no bootstrap server, or not yet."""
        key = (backend.url, port)
        if key not in self._known and self._absent.get(key, float("-inf")) <= self._clock.monotonic():
            await self._ask(key)
        return self._known.get(key, {}).get(rank, "")

    def forget(self, backend: Backend, port: int) -> None:
        """What is at its address now may be another: it is asked again."""
        self._known.pop((backend.url, port), None)

    async def _ask(self, key: tuple[str, int]) -> None:
        if len(self._known) + len(self._absent) >= ENGINES_MAX:
            self._known.clear()
            self._absent.clear()
        url, port = key
        try:
            address = f"http://{in_url(host_of(url))}:{port}/query"
            page = await self._page(address, timeout_s=self._settings.bootstrap_timeout_s, bytes_max=PAGE_BYTES_MAX)
            told = msgspec.json.decode(page, type=dict[int, _Entry])
        except (Unavailable, msgspec.DecodeError):
            told = {}
        if told:
            self._known[key] = {rank: entry.engine_id for rank, entry in told.items()}
        else:
            self._absent[key] = self._clock.monotonic() + self._settings.bootstrap_retry_s
