"""The stream of the engine that goes on, turned into the rest of the client's. Pure.

From here on every event is read and written anew; after a loss there is no hurry to save microseconds. What the client
gets goes into the same `Delivered`, so that the next loss finds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from hekla.routing.continuation.decision import CannotContinue
from hekla.routing.continuation.failure import failure_in
from hekla.routing.continuation.record import Delivered
from hekla.routing.sse import data_of, split_events, whole_events_end
from hekla.routing.usage import Usage, parse_usage

DONE = b"data: [DONE]\n\n"
Shape = dict[str, Any]


class Translator(Protocol):
    @property
    def is_over(self) -> bool:
        """What the engine still sends is not wanted."""

    def events(self, event: Shape) -> Iterator[Shape]:
        """What the client gets for one event. Raises CannotContinue, or ValueError on an event of another form."""

    def end(self) -> Iterator[Shape]:
        """What it gets after the last one, before `[DONE]`. Raises CannotContinue."""


class SecondStream:
    """Has the methods of `hekla.routing.usage.EventRelay`."""

    def __init__(
        self, translator: Translator, delivered: Delivered, *, hide_usage: bool, hide_ids: bool, held_bytes_max: int
    ) -> None:
        self._translator, self._delivered = translator, delivered
        self._hide_usage, self._hide_ids, self._held_max = hide_usage, hide_ids, held_bytes_max
        self._held = b""
        self._usage: Usage | None = None
        self._done = False
        self.failed = ""
        """The engine said that it failed, and how."""

    @property
    def events(self) -> int:
        """Tokens the client has, all engines together."""
        return sum(len(choice.tokens) for choice in self._delivered.choices.values())

    @property
    def is_over(self) -> bool:
        return self._translator.is_over

    @property
    def is_done(self) -> bool:
        return self._done or self.is_over

    @property
    def is_whole(self) -> bool:
        return self.is_done

    def feed(self, chunk: bytes) -> bytes:
        """What may be sent to the client now. Raises CannotContinue."""
        chunk = self._held + chunk
        end = whole_events_end(chunk)
        self._held = chunk[end:]
        if len(self._held) > self._held_max:
            raise CannotContinue(f"the engine that went on sent an event of more than {self._held_max} bytes")
        return b"".join(self._event(data_of(event)) for event in split_events(chunk[:end]))

    def rest(self) -> bytes:
        """The end of the client's stream. Raises CannotContinue."""
        return b"".join(map(self._written, self._translator.end())) + DONE

    def usage(self) -> Usage | None:
        return self._usage

    def _event(self, data: bytes) -> bytes:
        if not data or self._done or self.failed:
            return b""
        if data == b"[DONE]":
            self._done = True
            return b""
        try:
            event = msgspec.json.decode(data)
            self.failed = failure_in(event)
            return b"" if self.failed else b"".join(map(self._written, self._translator.events(event)))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CannotContinue(f"the events of the engine that went on could not be read: {error}") from error

    def _written(self, event: Shape) -> bytes:
        self._delivered.take(msgspec.json.encode(event))
        if not event.get("choices"):
            self._usage = parse_usage(event) or self._usage
            if self._hide_usage:
                return b""
        if self._hide_ids:
            for choice in event.get("choices") or ():
                choice.update(dict.fromkeys({"token_ids", "prompt_token_ids"} & choice.keys()))
            event.update(dict.fromkeys({"prompt_token_ids"} & event.keys()))
        return b"data: " + msgspec.json.encode(event) + b"\n\n"
