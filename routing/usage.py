"""Token counts out of an engine's answer, without reading more of it than needed. Pure.

A stream carries its usage in one event near its end. `"usage"` with both quotes can't occur inside a JSON string
(its quotes would be escaped), so one byte search per chunk finds it; only what is found is parsed, once, at the end.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from hekla.routing.body import Body
from hekla.routing.continuation.asking import MARK as IDS_MARK
from hekla.routing.continuation.asking import without_ids
from hekla.routing.continuation.failure import MARKS as FAILURES
from hekla.routing.continuation.failure import failure_at
from hekla.routing.continuation.record import Record
from hekla.routing.sse import data_of, split_events, whole_events_end

MARK = b'"usage"'
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_JSON = json.JSONDecoder()
JSON_TAIL_BYTES = 256 * 2**10
"""How much of a JSON answer's end is kept to find `usage` in: it comes after the choices."""
USAGE_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    tells_cached: bool = field(default=False, compare=False)
    """It said how many were cached, be it none: engines that are not asked to don't."""


def usage_changes(path: str, body: Body) -> dict[str, Any]:
    """The edit that makes an engine report usage at the stream's end; empty when the client asked itself.

    The client's other stream options stay. With `continuous_usage_stats` nothing is changed: asking for usage then
    would put it into every chunk. When the edit is not empty the usage event is to be hidden from the client.
    """
    if path not in USAGE_PATHS or not body.is_true("stream"):
        return {}
    options = body.get("stream_options")
    if options is None:
        options = {}
    if not isinstance(options, dict) or options.get("include_usage") is True or options.get("continuous_usage_stats"):
        return {}
    return {"stream_options": {**options, "include_usage": True}}


def parse_usage(obj: Any) -> Usage | None:
    """Usage of an answer or event of the OpenAI, Responses or Anthropic APIs; None when it has none."""
    if not isinstance(obj, dict):
        return None
    for holder in (obj, obj.get("response"), obj.get("message")):
        if isinstance(holder, dict) and isinstance(holder.get("usage"), dict):
            return _counts(holder["usage"])
    return None


def _counts(usage: dict[str, Any]) -> Usage:
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    cached = cached if cached is not None else usage.get("cache_read_input_tokens")
    # Anthropic's `input_tokens` are those that were neither read from its cache nor written to it.
    others = sum(_int(usage.get(f"cache_{name}_input_tokens")) for name in ("read", "creation"))
    return Usage(
        prompt_tokens=_int(usage.get("prompt_tokens", usage.get("input_tokens"))) + others,
        completion_tokens=_int(usage.get("completion_tokens", usage.get("output_tokens"))),
        cached_tokens=_int(cached),
        tells_cached=isinstance(cached, int),
    )


def _int(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


class JsonTail:
    """Keeps the end of a JSON answer, to read its usage when it is whole."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, chunk: bytes) -> None:
        self._tail = (self._tail + chunk)[-JSON_TAIL_BYTES:] if self._tail else chunk[-JSON_TAIL_BYTES:]

    def usage(self) -> Usage | None:
        at = self._tail.rfind(MARK)
        if at < 0:
            return None
        try:
            text = self._tail[at + len(MARK) :].decode("utf-8", "replace").lstrip(" \t\r\n:")
            value, _ = _JSON.raw_decode(text)
        except (ValueError, RecursionError):
            return None
        return parse_usage({"usage": value})


class EventRelay:
    """Passes on whole SSE events, hides the usage-only one when told to, and remembers where usage was seen.

    Holding back the unfinished end of a chunk costs nothing (engines write whole events) and means that a stream
    always breaks between events.
    """

    __slots__ = (
        "_first", "_held", "_held_max", "_hide", "_hide_ids", "_last", "_record", "_tail", "events", "failed", "is_over",
    )  # fmt: skip

    def __init__(
        self, *, hide_usage: bool, held_bytes_max: int, hide_ids: bool = False, record: Record | None = None
    ) -> None:
        """`record` gets what the client gets, with the token ids that `hide_ids` takes out."""
        self._hide, self._held_max, self._hide_ids, self._record = hide_usage, held_bytes_max, hide_ids, record
        self._held = self._first = self._last = self._tail = b""
        self.events = 0
        """Whole events passed on."""
        self.failed = ""
        """The engine said inside the stream that it failed, and how."""
        self.is_over = False

    def feed(self, chunk: bytes) -> bytes:
        """What may be sent to the client now, possibly nothing."""
        if self._held:
            chunk = self._held + chunk
            self._held = b""
        if not chunk.endswith((b"\n\n", b"\n\r\n")):
            end = whole_events_end(chunk)
            if len(chunk) - end > self._held_max:
                end = len(chunk)
            self._held, chunk = chunk[end:], chunk[:end]
        if self._record is not None:
            if FAILURES[0] in chunk or FAILURES[1] in chunk:
                chunk, self.failed = failure_at(chunk)
            self._record.add(chunk)
            self._tail = chunk or self._tail
        if MARK in chunk:
            chunk = self._noted(chunk)
        if self._hide_ids and IDS_MARK in chunk:
            chunk = without_ids(chunk)
        self.events += chunk.count(b"\n\n")
        return chunk

    @property
    def is_done(self) -> bool:
        """The engine's end mark was passed on."""
        return b"[DONE]" in self._tail

    @property
    def is_whole(self) -> bool:
        """Nothing is missing when its bytes end here; True where no end mark is known."""
        return self._record is None or self.is_done or b"[DONE]" in self._held or self._record.is_finished

    def rest(self) -> bytes:
        """The unfinished event of a stream that ended in good order."""
        held, self._held = self._held, b""
        return held

    def _noted(self, chunk: bytes) -> bytes:
        if not self._first:
            self._first = chunk
        if not self._hide or not _NO_CHOICES.search(chunk):
            self._last = chunk
            return chunk
        kept = []
        for event in split_events(chunk):
            if MARK in event and _NO_CHOICES.search(event) and _usage_in(event) is not None:
                self._last = event
            else:
                kept.append(event)
        return b"".join(kept)

    def usage(self) -> Usage | None:
        """The last usage seen; what it lacks (Anthropic tells the prompt's tokens first) from the first."""
        last = _usage_in(self._last) if self._last else None
        first = _usage_in(self._first) if self._first else None
        return _together(first, last)


def _together(first: Usage | None, last: Usage | None) -> Usage | None:
    if last is None or first is None:
        return last or first
    return Usage(
        last.prompt_tokens or first.prompt_tokens,
        last.completion_tokens or first.completion_tokens,
        last.cached_tokens or first.cached_tokens,
        last.tells_cached or first.tells_cached,
    )


def _usage_in(chunk: bytes) -> Usage | None:
    found = None
    for event in split_events(chunk):
        if MARK in event:
            data = data_of(event)
            try:
                found = _together(found, parse_usage(msgspec.json.decode(data)))
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                continue
    return found
