"""What the tries of one request share."""

from __future__ import annotations

from hekla.routing.backend import ModelServer
from hekla.routing.exchange import Exchange
from hekla.routing.headers import RawHeaders, to_engine
from hekla.routing.usage import EventRelay
from hekla.routing.view import LazyView


class Call:
    __slots__ = (
        "events",
        "exchange",
        "headers",
        "prefill_answer",
        "rejection",
        "server",
        "target",
        "tried",
        "unreached",
        "view",
    )

    def __init__(self, exchange: Exchange, server: ModelServer, view: LazyView, events: EventRelay) -> None:
        self.exchange, self.server, self.view, self.events = exchange, server, view, events
        query = exchange.scope.get("query_string", b"")
        self.target = exchange.path + ("?" + query.decode("latin-1") if query else "")
        self.headers = to_engine(exchange.raw_headers, exchange.request_id)
        self.tried: set[str] = set()
        """Keys of engines that failed it."""
        self.unreached: set[str] = set()
        """Those of them whose connection failed: with no other left they are asked again."""
        self.prefill_answer: bytes | None = None
        self.rejection: tuple[RawHeaders, bytes] | None = None
        """Headers and body of the last 429 from an engine."""
