"""A stream of chat completion chunks as Anthropic's events. Pure.

Anthropic's stream is a sequence of content blocks, each begun and ended; OpenAI's is deltas to one message. A block ends here when
a delta belongs to another one. Why the answer ended is told at once, but held back until the usage, which comes after it.
"""

from __future__ import annotations

from typing import Any

from hekla.routing.translation.endings import anthropic_usage, stop_of
from hekla.routing.translation.events import EventReader, anthropic_event
from hekla.routing.translation.problems import AnswerUntranslatable, Json

TEXT = "text"


class MessageEvents:
    """A `StreamTranslator`."""

    def __init__(self, *, event_bytes_max: int) -> None:
        self._reader = EventReader(event_bytes_max)
        self._has_begun = self._is_over = False
        self._open: str | int | None = None
        """The block that is open: `TEXT`, or the number of a tool call."""
        self._index = -1
        self._called: set[int] = set()
        self._stop: tuple[str, str | None] | None = None
        self._usage: Any = None

    def feed(self, chunk: bytes) -> bytes:
        """What comes after the stream's end, or an error in it, is dropped."""
        out = bytearray()
        try:
            for event in self._reader.feed(chunk):
                if self._is_over:
                    break
                out += self._ended() if event is None else self._translated(event)
        except AnswerUntranslatable as error:
            out += self._failed(str(error))
        return bytes(out)

    def finish(self) -> bytes:
        if self._is_over:
            return b""
        return self._ended() if self._stop else self._failed("the provider's stream stopped before its end")

    def _translated(self, chunk: Json) -> bytes:
        if chunk.get("error"):
            error = chunk["error"]
            return self._failed(str(error.get("message") or "it failed") if isinstance(error, dict) else str(error))
        out = b"" if self._has_begun else self._begin(chunk)
        self._usage = chunk.get("usage") or self._usage
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
        if choice is None:
            return out
        delta = choice.get("delta")
        out += self._deltas(delta if isinstance(delta, dict) else {})
        if choice.get("finish_reason"):
            self._stop = stop_of(choice)
        return out

    def _begin(self, chunk: Json) -> bytes:
        self._has_begun = True
        message: Json = {
            "id": chunk.get("id") or "", "type": "message", "role": "assistant", "model": chunk.get("model") or "",
            "content": [], "stop_reason": None, "stop_sequence": None, "usage": anthropic_usage(chunk.get("usage")),
        }  # fmt: skip
        return anthropic_event({"type": "message_start", "message": message})

    def _deltas(self, delta: Json) -> bytes:
        out = b""
        for text in (delta.get("content"), delta.get("refusal")):
            if text:
                out += self._in_block(TEXT, {"type": "text", "text": ""}) + self._delta(
                    {"type": "text_delta", "text": text}
                )
        for call in delta.get("tool_calls") or ():
            if not isinstance(call, dict):
                raise AnswerUntranslatable("a tool call in the provider's stream is no object")
            out += self._tool(call)
        return out

    def _tool(self, call: Json) -> bytes:
        number, given = call.get("index", 0), call.get("function")
        function: Json = given if isinstance(given, dict) else {}
        if number in self._called and number != self._open:
            raise AnswerUntranslatable("the provider's stream goes back to a tool call that had ended")
        self._called.add(number)
        block: Json = {"type": "tool_use", "id": call.get("id") or "", "name": function.get("name") or "", "input": {}}
        out = self._in_block(number, block)
        if function.get("arguments"):
            out += self._delta({"type": "input_json_delta", "partial_json": function["arguments"]})
        return out

    def _in_block(self, which: str | int, block: Json) -> bytes:
        """Nothing when it is open already."""
        if self._open == which:
            return b""
        out = self._close()
        self._open, self._index = which, self._index + 1
        return out + anthropic_event({"type": "content_block_start", "index": self._index, "content_block": block})

    def _delta(self, delta: Json) -> bytes:
        return anthropic_event({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return anthropic_event({"type": "content_block_stop", "index": self._index})

    def _ended(self) -> bytes:
        """After `[DONE]`, before which not every server says why it stopped."""
        self._is_over = True
        reason, sequence = self._stop or ("end_turn", None)
        begun = b"" if self._has_begun else self._begin({})
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        ending = {"type": "message_delta", "delta": delta, "usage": anthropic_usage(self._usage)}
        return begun + self._close() + anthropic_event(ending) + anthropic_event({"type": "message_stop"})

    def _failed(self, message: str) -> bytes:
        self._is_over = True
        return anthropic_event({"type": "error", "error": {"type": "api_error", "message": message}})
