"""Server-sent events, cut anywhere, as JSON objects, and back. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from hekla.routing.sse import data_of, split_events, whole_events_end
from hekla.routing.translation.problems import AnswerUntranslatable, Json

DONE = b"data: [DONE]\n\n"


class StreamTranslator(Protocol):
    """Turns one format's stream into the other's."""

    def feed(self, chunk: bytes) -> bytes:
        """What may be sent to the client now."""

    def finish(self) -> bytes:
        """What ends the client's stream when the other's has ended."""


class EventReader:
    """Whole events out of chunks."""

    def __init__(self, event_bytes_max: int) -> None:
        self._held = b""
        self._held_max = event_bytes_max

    def feed(self, chunk: bytes) -> Iterator[Json | None]:
        """The data of each event; None for `[DONE]`. Raises AnswerUntranslatable for what is no event."""
        chunk = self._held + chunk
        end = whole_events_end(chunk)
        self._held = chunk[end:]
        if len(self._held) > self._held_max:
            raise AnswerUntranslatable(f"an event of the provider's stream is longer than {self._held_max} bytes")
        for event in split_events(chunk[:end]):
            data = data_of(event)
            if data == b"[DONE]":
                yield None
            elif data:
                yield _object(data)


def _object(data: bytes) -> Json:
    try:
        found: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise AnswerUntranslatable(f"an event of the provider's stream is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise AnswerUntranslatable("an event of the provider's stream is no JSON object")
    return found


def openai_event(obj: Json) -> bytes:
    return b"data: " + msgspec.json.encode(obj) + b"\n\n"


def anthropic_event(obj: Json) -> bytes:
    return b"event: " + str(obj["type"]).encode() + b"\ndata: " + msgspec.json.encode(obj) + b"\n\n"
