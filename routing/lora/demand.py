"""What is asked of each ModelServer's adapters in this replica: counted here, told to the platform. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from hekla.platform.api.meta import Json
from hekla.routing.backend import ModelServer, ServerKey

BASE = ""
"""Stands for the base model among the counts."""


@dataclass
class _Asked:
    counts: Counter[str] = field(default_factory=Counter)
    waiting: Counter[str] = field(default_factory=Counter)
    is_news: bool = False


class DemandBook:
    """Counts by ModelServer, of those that declare adapters."""

    def __init__(self) -> None:
        self._asked: dict[ServerKey, _Asked] = {}

    def count(self, server: ModelServer, adapter: str) -> None:
        asked = self._asked.setdefault(server.key, _Asked())
        asked.counts[adapter] += 1
        asked.is_news = True

    def waits(self, server: ServerKey, adapter: str) -> None:
        asked = self._asked.setdefault(server, _Asked())
        asked.waiting[adapter] += 1
        asked.is_news = True

    def waits_no_more(self, server: ServerKey, adapter: str) -> None:
        asked = self._asked.get(server)
        if asked is not None:
            asked.waiting[adapter] -= 1
            if asked.waiting[adapter] <= 0:
                del asked.waiting[adapter]

    def keep(self, servers: Mapping[ServerKey, ModelServer]) -> None:
        """Forget servers that are gone or declare no adapters any more, and adapters that are not declared."""
        for key in [key for key in self._asked if key not in servers or not servers[key].adapters]:
            del self._asked[key]
        for key, asked in self._asked.items():
            for name in [name for name in asked.counts if name != BASE and name not in servers[key].adapters]:
                del asked.counts[name]

    def news(self, *, started_s: float, now_s: float) -> dict[ServerKey, Json]:
        """What has to be told now, in Unix seconds; told once, and again while requests wait."""
        due = {key: asked for key, asked in self._asked.items() if asked.is_news or asked.waiting}
        for asked in due.values():
            asked.is_news = False
        return {
            key: {
                "at": round(now_s, 3),
                "startedAt": round(started_s, 3),
                "counts": dict(asked.counts),
                "waiting": sorted(asked.waiting),
            }
            for key, asked in due.items()
        }

    def failed(self, server: ServerKey) -> None:
        """It did not arrive."""
        if server in self._asked:
            self._asked[server].is_news = True
