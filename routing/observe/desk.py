"""Who may see the debug pages, and their answers."""

from __future__ import annotations

from hekla.platform.base.clock import Clock
from hekla.routing.exchange import Exchange
from hekla.routing.identity.interface import ADMIN
from hekla.routing.identity.service import Identity
from hekla.routing.observe.decisions import Decisions
from hekla.routing.observe.pages import is_from_here
from hekla.routing.observe.parts import Parts
from hekla.routing.observe.sources import debug_pages
from hekla.routing.openai_api import wrong_path
from hekla.routing.refusal import Refusal


class Desk:
    def __init__(self, parts: Parts, decisions: Decisions, identity: Identity, clock: Clock) -> None:
        self._pages, self._identity = debug_pages(parts, decisions, clock), identity

    @property
    def paths(self) -> list[str]:
        """Of every page."""
        return self._pages.paths

    async def answer(self, exchange: Exchange) -> None:
        """An admin's credential, or while nobody is asked for one a client on this machine."""
        try:
            self._identity.admit(exchange, ADMIN)
            if not self._identity.is_on and not is_from_here(exchange):
                raise wrong_path(exchange.method, exchange.path)  # to strangers it is not there
            await self._pages.answer(exchange)
        except Refusal as refusal:
            await exchange.refuse(refusal)
