"""Keeps a session at its engine while that engine can take it. Pure but for its memory.

The profile that chooses engines knows nothing of this: it is asked to choose among one engine, the home, and where the home
can't be used, among all. So stickiness holds with every profile, and with prefill/decode groups (the home is the decode engine).
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from hekla.routing.backend import Backend, ModelServer
from hekla.routing.load import EngineLoad
from hekla.routing.table import Match
from hekla.routing.traffic.settings import StickySettings
from hekla.routing.traffic.sticky import SessionMemory, has_room


class Affinity:
    def __init__(self, settings: StickySettings, memory: SessionMemory, load: Callable[[str], EngineLoad]) -> None:
        self._settings, self._memory, self._load = settings, memory, load

    def use(self, settings: StickySettings) -> None:
        self._settings = settings

    def others(self, server: ModelServer, match: Match, tried: Collection[str], now_s: float) -> set[str] | None:
        """The engines to leave out so that only the session's home is left; None when it has none that can take it."""
        if match.route.sticky is None or not match.session:
            return None
        pool = [backend.key for backend in serving(server)]
        home = self._memory.remembered(server.name, match.session, now_s)
        if home not in pool or not self._is_usable(home, tried, now_s):
            usable = [key for key in pool if self._is_usable(key, tried, now_s)]
            home = self._memory.home(server.name, match.session, usable, now_s)
        if home is None or not self._has_room(home, pool, tried, now_s):
            return None
        return {*tried, *pool} - {home}

    def went(self, server: ModelServer, match: Match, engine: str, now_s: float) -> bool:
        """The session's request goes to `engine`: that is where its next one should go. True when it was its home."""
        if match.route.sticky is None or not match.session:
            return False
        home = self._memory.remembered(server.name, match.session, now_s)
        if home is None:
            pool = [backend.key for backend in serving(server)]
            home = self._memory.home(server.name, match.session, pool, now_s)
        self._memory.remember(
            server.name, match.session, engine, now_s, ttl_s=match.route.sticky.ttl_s, has_moved=home != engine
        )
        return home == engine

    def _is_usable(self, key: str, tried: Collection[str], now_s: float) -> bool:
        load = self._load(key)
        return key not in tried and not load.ejected and load.suspect_until_s <= now_s

    def _has_room(self, home: str, pool: list[str], tried: Collection[str], now_s: float) -> bool:
        settings, requests = self._settings, self._load(home).requests
        if requests < settings.requests_free:
            return True
        usable = [key for key in pool if key != home and self._is_usable(key, tried, now_s)]
        others = [self._load(key).requests for key in usable]
        return has_room(requests, others, load_factor=settings.load_factor, requests_free=settings.requests_free)


def serving(server: ModelServer) -> list[Backend]:
    """The engines that answer clients: all, or those that decode."""
    if server.groups is None:
        return list(server.backends)
    return [backend for group in server.groups.values() for backend in group.decode]
