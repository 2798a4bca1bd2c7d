"""What the tries of one request share."""

from __future__ import annotations

from typing import Protocol

from hekla.routing.backend import ModelServer
from hekla.routing.continuation.record import Record
from hekla.routing.exchange import Exchange
from hekla.routing.headers import RawHeaders, to_engine
from hekla.routing.traffic.health import Verdict
from hekla.routing.usage import Usage
from hekla.routing.view import LazyView


class Events(Protocol):
    """What an engine's stream goes through on its way to the client: `EventRelay`, or after a loss `SecondStream`."""

    failed: str
    """The engine said inside the stream that it failed, and how."""

    @property
    def events(self) -> int:
        """Events, about tokens, passed on."""

    @property
    def is_over(self) -> bool:
        """What the engine still sends is not wanted."""

    @property
    def is_done(self) -> bool:
        """The engine's end mark came."""

    @property
    def is_whole(self) -> bool:
        """Nothing is missing when its bytes end here."""

    def feed(self, chunk: bytes) -> bytes:
        """What may be sent to the client now."""

    def rest(self) -> bytes:
        """What ends the client's stream."""

    def usage(self) -> Usage | None:
        """What the stream told of it."""


class Call:
    __slots__ = (
        "events",
        "exchange",
        "headers",
        "hides_ids",
        "hides_usage",
        "prefill_answer",
        "record",
        "rejection",
        "server",
        "suspected",
        "target",
        "tried",
        "unreached",
        "verdict",
        "view",
    )

    def __init__(self, exchange: Exchange, server: ModelServer, view: LazyView, events: Events) -> None:
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
        self.verdict: Verdict | None = None
        """Of the try under way, about its engine."""
        self.suspected: list[Verdict] = []
        """Of failed tries that may be the request's own fault: until another engine has served it."""
        self.record: Record | None = None
        """What the client has of a stream; None when it can't be continued."""
        self.hides_usage = self.hides_ids = False
        """The ingress asked for them, not the client."""

    @property
    def has_begun(self) -> bool:
        """The client has the answer's head: no other answer can be given."""
        return self.exchange.status != 0
