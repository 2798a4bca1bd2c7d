"""Engines whose servers lack `/v1/messages`: their requests become chat completions."""

from __future__ import annotations

from hekla.routing.exchange import Exchange
from hekla.routing.traffic.failover import TargetServer
from hekla.routing.translation.exchange import Translation
from hekla.routing.translation.formats import CHAT, MESSAGES
from hekla.routing.view import LazyView


class TranslatedEngines:
    """A `TargetServer` before that of engines."""

    def __init__(self, engines: TargetServer, translation: Translation, kinds: tuple[str, ...]) -> None:
        """`kinds`: values of `inferenceEngine`."""
        self._engines, self._translation, self._kinds = engines, translation, frozenset(kinds)

    async def serve(self, exchange: Exchange, view: LazyView) -> None:
        server = exchange.match.server if exchange.match is not None else None
        if exchange.path != MESSAGES or server is None or server.engine not in self._kinds:
            await self._engines.serve(exchange, view)
            return
        async with self._translation.into(exchange, view.asked, for_engine=True) as body:
            await self._engines.serve(exchange, view.of(body, CHAT))
