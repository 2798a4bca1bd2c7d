"""Serving a request from its target, or from the next of the rule's targets when that one can't."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from hekla.routing.admission.interface import Reason
from hekla.routing.exchange import Exchange
from hekla.routing.refusal import Refusal
from hekla.routing.table import Match, RoutingTable
from hekla.routing.traffic.metrics import TrafficMetrics
from hekla.routing.traffic.settings import FailoverSettings
from hekla.routing.view import LazyView

BROKEN = frozenset(
    {
        "no_ready_engine", "upstream_failed", "model_server_not_found", "provider_not_ready", "provider_not_found",
        "upstream_redirect",
    }
)  # fmt: skip
"""Codes of refusals that say: this target can't. Nothing of its answer has reached the client."""
BUSY = frozenset({"engines_busy", "upstream_busy", Reason.QUEUE_FULL, Reason.DISPLACED, Reason.TIMEOUT})
"""Codes of refusals that say: this target has no room now. A tenant's own full queue is not one: it would be full elsewhere."""


class TargetServer(Protocol):
    """Serves requests whose target is of its kind: a ModelServer's engines, or an external provider."""

    async def serve(self, exchange: Exchange, view: LazyView) -> None:
        """Answers from the target of `exchange.match`. Raises Refusal while nothing has been sent.

        The client's own body is `view.asked`; what goes upstream is made from it anew, since another target may have been
        asked before.
        """


class Targets:
    """A `TargetServer` of all kinds, with failover."""

    def __init__(
        self, engines: TargetServer, external: TargetServer, settings: FailoverSettings, metrics: TrafficMetrics
    ) -> None:
        self._engines, self._external, self._settings, self._metrics = engines, external, settings, metrics

    def use(self, settings: FailoverSettings) -> None:
        self._settings = settings

    async def serve(self, exchange: Exchange, view: LazyView, table: RoutingTable) -> None:
        """Raises the last target's Refusal."""
        match = exchange.match
        assert match is not None, "a request is matched before it is served"
        if match.is_failover:
            self._count(match, "not_ready")
        others: Iterator[Match] = table.failovers(match)
        while True:
            try:
                await self._of(match).serve(exchange, view)
                return
            except Refusal as refusal:
                following = next(others, None) if self._is_for_another(exchange, refusal) else None
                if following is None:
                    raise
                match = exchange.match = following
                self._count(match, refusal.code or refusal.kind)

    def _of(self, match: Match) -> TargetServer:
        return self._external if match.target.external else self._engines

    def _is_for_another(self, exchange: Exchange, refusal: Refusal) -> bool:
        if exchange.status:
            return False
        return refusal.code in BROKEN or (self._settings.when_busy and refusal.code in BUSY)

    def _count(self, match: Match, reason: str) -> None:
        self._metrics.failovers.labels(match.route.key, match.target.name, reason).inc()
