"""What a client has been given of a streamed answer, so that another engine can go on from there. Pure.

While an engine is well this must cost next to nothing: chunks are kept as the bytes that came, and only when they
pass `FOLD_BYTES` are they read and folded into texts and token ids. An answer shorter than that is never parsed.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import msgspec

from hekla.routing.sse import data_of, split_events

FOLD_BYTES = 32 * 2**10
"""Raw bytes one stream holds before they are read: about a hundred tokens of vLLM's events, 256 MiB at 8,192 streams."""

HEAD_FIELDS = ("id", "object", "created", "model", "system_fingerprint")
TEXT_FIELDS = ("content", "reasoning", "reasoning_content", "refusal")


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    index: int = 0
    function: _Function | None = None


class _Delta(msgspec.Struct):
    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    delta: _Delta | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    prompt_token_ids: list[int] | None = None
    usage: dict[str, Any] | None = None


_read_event = msgspec.json.Decoder(_Event).decode
_read_lines = msgspec.json.Decoder(_Event).decode_lines
_read_any = msgspec.json.Decoder().decode


@dataclass
class Choice:
    """One choice as far as the client has it."""

    texts: dict[str, StringIO] = field(default_factory=dict)
    """By channel: `text`, `content`, `reasoning`, `tool.0.arguments`, …"""
    tokens: array[int] = field(default_factory=lambda: array("I"))
    shown_tokens: int = 0
    """Tokens up to the last chunk that brought text: those behind it wait for a character's or a stop string's end."""
    has_role: bool = False
    has_tools: bool = False
    untold: bool = False
    """Text came without token ids."""
    logprobs: int = 0
    """Entries of log-probabilities."""
    text_offset: int = 0
    """Where the next token's `text_offset` starts."""
    finish: str | None = None

    @property
    def shown(self) -> str:
        """The answer's plain text."""
        return self.text_of("text") + self.text_of("content")

    def text_of(self, channel: str) -> str:
        return self.texts[channel].getvalue() if channel in self.texts else ""

    @property
    def is_empty(self) -> bool:
        """Only the role was told, or not even that."""
        return not (self.texts or self.tokens or self.has_tools or self.finish)


@dataclass
class Delivered:
    """All of it, choice by choice."""

    head: dict[str, Any] = field(default_factory=dict)
    """What every chunk repeats: id, model and so on."""
    prompt: array[int] = field(default_factory=lambda: array("I"))
    """Token ids of the prompt; of the first, when there are several."""
    choices: dict[int, Choice] = field(default_factory=dict)
    has_usage: bool = False
    """The closing usage event was among it."""
    size_bytes: int = 0

    def take(self, data: bytes) -> None:
        """One event's data. Raises msgspec.DecodeError (a ValueError) on what is no chunk of a known shape."""
        if not self.head:
            whole = _read_any(data)
            self.head = {name: whole[name] for name in HEAD_FIELDS if name in whole}
        self._take_event(_read_event(data))

    def take_stream(self, raw: bytes) -> None:
        """Whole events. Raises as `take`."""
        lines = _lines_of(raw)
        try:
            events = _read_lines(lines)
        except ValueError:
            events = None
        if not self.head or events is None:  # the first of a stream, or of another form than nearly all have
            for data in map(data_of, split_events(raw)):
                if data and data != b"[DONE]":
                    self.take(data)
            return
        for event in events:
            self._take_event(event)

    def _take_event(self, event: _Event) -> None:
        if event.prompt_token_ids:
            self._take_prompt(event.prompt_token_ids)
        if not event.choices and event.usage is not None:
            self.has_usage = True
        for one in event.choices:
            if one.prompt_token_ids:
                self._take_prompt(one.prompt_token_ids)
            self._take_choice(one)

    def _take_prompt(self, ids: list[int]) -> None:
        if not self.prompt:
            self.prompt = array("I", ids)
            self.size_bytes += 4 * len(ids)

    def _take_choice(self, one: _Choice) -> None:
        choice = self.choices.get(one.index)
        if choice is None:
            choice = self.choices[one.index] = Choice()
        gained = self._add(choice, "text", one.text) if one.text else False
        if one.delta is not None:
            gained = self._take_delta(choice, one.delta)
        if one.token_ids:
            choice.tokens.extend(one.token_ids)
            self.size_bytes += 4 * len(one.token_ids)
        elif gained:
            choice.untold = True
        if gained:
            choice.shown_tokens = len(choice.tokens)
        if one.logprobs is not None:
            _take_logprobs(choice, one.logprobs)
        if one.finish_reason is not None:
            choice.finish = one.finish_reason

    def _take_delta(self, choice: Choice, delta: _Delta) -> bool:
        gained = self._add(choice, "content", delta.content) if delta.content else False
        if delta.role is not None:
            choice.has_role = True
        if delta.reasoning is None and delta.reasoning_content is None and delta.refusal is None:
            return gained if delta.tool_calls is None else self._take_calls(choice, delta.tool_calls) or gained
        for name in TEXT_FIELDS[1:]:
            gained = self._add(choice, name, getattr(delta, name)) or gained
        return self._take_calls(choice, delta.tool_calls or []) or gained

    def _take_calls(self, choice: Choice, calls: list[_ToolCall]) -> bool:
        gained = False
        for call in calls:
            choice.has_tools = True
            if call.function is not None:
                gained = self._add(choice, f"tool.{call.index}.name", call.function.name) or gained
                gained = self._add(choice, f"tool.{call.index}.arguments", call.function.arguments) or gained
        return gained

    def _add(self, choice: Choice, channel: str, text: str | None) -> bool:
        if not text:
            return False
        written = choice.texts.get(channel)
        if written is None:
            written = choice.texts[channel] = StringIO(newline="")
        written.write(text)
        self.size_bytes += len(text)
        return True


def _lines_of(raw: bytes) -> bytes:
    """The data of events that are one `data: ` line each, a line each."""
    return raw[6:].replace(b"\n\ndata: ", b"\n").rstrip(b"\n").removesuffix(b"[DONE]")


def _take_logprobs(choice: Choice, told: dict[str, Any]) -> None:
    entries = told.get("content") or told.get("tokens") or []
    choice.logprobs += len(entries)
    offsets = told.get("text_offset")
    if offsets and entries:
        choice.text_offset = offsets[-1] + len(entries[-1])


class Record:
    """What was sent to one client, mostly unread. `add` is on the way of every chunk."""

    __slots__ = ("_bytes_max", "_delivered", "_raw", "_raw_bytes", "lost")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._raw: list[bytes] = []
        self._raw_bytes = 0
        self._delivered = Delivered()
        self.lost = ""
        """Why the record can't be used; empty: it can."""

    def add(self, chunk: bytes) -> None:
        """Whole events, as the engine sent them."""
        self._raw.append(chunk)
        self._raw_bytes += len(chunk)
        if self._raw_bytes > FOLD_BYTES:
            self._fold()

    def read(self) -> Delivered:
        """All that was added; look at `lost` first. The object is the record's own and grows with it."""
        self._fold()
        return self._delivered

    @property
    def is_finished(self) -> bool:
        """Every choice was told why it ended; also True when nothing is known of any."""
        choices = self.read().choices.values()
        return all(choice.finish is not None for choice in choices)

    def _fold(self) -> None:
        raw, self._raw, self._raw_bytes = b"".join(self._raw), [], 0
        if self.lost:
            return
        try:
            self._delivered.take_stream(raw)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            self._give_up(f"its events could not be read: {error}")
        if self._delivered.size_bytes > self._bytes_max:
            self._give_up(f"more than {self._bytes_max} bytes of it had been delivered (continuation.record_bytes_max)")

    def _give_up(self, reason: str) -> None:
        self.lost, self._delivered = reason, Delivered()
