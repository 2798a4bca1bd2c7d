"""The target that is a ModelServer: the request as its engines are to see it, and the tries on them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from hekla.routing.backend import ModelServer
from hekla.routing.body import MalformedBody
from hekla.routing.continuation.asking import token_id_changes
from hekla.routing.continuation.settings import ContinuationSettings
from hekla.routing.exchange import Exchange
from hekla.routing.lora.service import AdapterService
from hekla.routing.openai_api import server_not_found
from hekla.routing.refusal import Refusal
from hekla.routing.table import Match
from hekla.routing.usage import usage_changes
from hekla.routing.view import LazyView

Prepare = Callable[[LazyView, ModelServer], Awaitable[None]]
"""What must be known of a request before engines are chosen for it: the token ids of its prompt."""


class Tries(Protocol):
    """`Proxy.serve`."""

    async def __call__(
        self, exchange: Exchange, server: ModelServer, view: LazyView, *, hide_usage: bool, hide_ids: bool
    ) -> None: ...


class EngineTarget:
    """A `TargetServer`."""

    def __init__(
        self, tries: Tries, prepare: Prepare, continuation: ContinuationSettings, adapters: AdapterService
    ) -> None:
        self._tries, self._prepare, self._continuation, self._adapters = tries, prepare, continuation, adapters

    def use(self, continuation: ContinuationSettings) -> None:
        self._continuation = continuation

    async def serve(self, exchange: Exchange, view: LazyView) -> None:
        match = exchange.match
        assert match is not None, "a request is matched before it is served"
        server = match.server
        if server is None:
            raise server_not_found(view.model, match.target.name, match.target.external)
        aim(view, match)
        try:
            usage = usage_changes(exchange.path, view.asked)
            ids = token_id_changes(exchange.path, view.asked, server.engine, view.estimated_tokens, self._continuation)
        except MalformedBody as error:
            raise malformed(error) from error
        renamed = view.upstream_model if view.upstream_model != view.model else None
        changes = {**usage, **ids, **({"model": renamed} if renamed else {})}
        view.body = view.asked.edited(changes) if changes else view.asked
        self._adapters.note(server, view)
        deadline_s = self._adapters.deadline_s()
        server = await self._adapters.ready(server, view, deadline_s)
        while True:
            await self._prepare(view, server)
            try:
                await self._tries(exchange, server, view, hide_usage=bool(usage), hide_ids=bool(ids))
                return
            except Refusal as refusal:
                if not self._adapters.may_wait_again(exchange, view, server, refusal):
                    raise
            server = await self._adapters.again(server, view, deadline_s)


def aim(view: LazyView, match: Match) -> None:
    """The view as this target's scheduler is to see it; what was computed for another target's is dropped."""
    upstream_model = match.upstream_model or view.model
    if upstream_model != view.upstream_model:
        view.memo.clear()
        view.token_ids = None
    view.upstream_model, view.is_adapter, view.session = upstream_model, match.is_adapter, match.session


def malformed(error: Exception) -> Refusal:
    return Refusal(400, f"the request's body is not valid JSON text: {error}", kind="request_parsing")
