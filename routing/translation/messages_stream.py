"""A stream of Anthropic's messages as chunks of a chat completion. Pure."""

from __future__ import annotations

from typing import Any

from hekla.routing.translation.endings import finish_reason, openai_usage
from hekla.routing.translation.errors import openai_error_object
from hekla.routing.translation.events import DONE, EventReader, openai_event
from hekla.routing.translation.problems import AnswerUntranslatable, Json


class ChatChunks:
    """A `StreamTranslator`. `wants_usage`: the client asked for a last chunk with the usage."""

    def __init__(self, *, created_s: int, wants_usage: bool, event_bytes_max: int) -> None:
        self._created_s, self._wants_usage = created_s, wants_usage
        self._reader = EventReader(event_bytes_max)
        self._id = self._model = ""
        self._calls: dict[int, int] = {}
        """Which tool call a content block is."""
        self._argued: set[int] = set()
        """Blocks whose arguments have begun."""
        self._usage: Json = {}
        self._is_over = False

    def feed(self, chunk: bytes) -> bytes:
        """What comes after the stream's end, or an error in it, is dropped."""
        out = bytearray()
        try:
            for event in self._reader.feed(chunk):
                if self._is_over:
                    break
                out += self._translated(event or {})
        except AnswerUntranslatable as error:
            out += self._failed("api_error", str(error))
        return bytes(out)

    def finish(self) -> bytes:
        return b"" if self._is_over else self._failed("api_error", "the provider's stream stopped before its end")

    def _translated(self, event: Json) -> bytes:
        match event.get("type"):
            case "message_start":
                return self._begin(_dict(event.get("message")))
            case "content_block_start":
                return self._block(event)
            case "content_block_delta":
                return self._delta(event)
            case "message_delta":
                return self._end(event)
            case "message_stop":
                return self._stop()
            case "error":
                error = _dict(event.get("error"))
                return self._failed(str(error.get("type") or "api_error"), str(error.get("message") or "it failed"))
        return b""  # pings, the ends of blocks, and events that are yet to be invented

    def _begin(self, message: Json) -> bytes:
        self._id, self._model = str(message.get("id") or ""), str(message.get("model") or "")
        self._usage = _dict(message.get("usage"))
        return self._chunk({"role": "assistant", "content": ""})

    def _block(self, event: Json) -> bytes:
        block = _dict(event.get("content_block"))
        if block.get("type") == "text" and block.get("text"):
            return self._chunk({"content": block["text"]})
        if block.get("type") != "tool_use":
            return b""
        number = self._calls[event.get("index", 0)] = len(self._calls)
        function = {"name": block.get("name") or "", "arguments": ""}
        call = {"index": number, "id": block.get("id") or "", "type": "function", "function": function}
        return self._chunk({"tool_calls": [call]})

    def _delta(self, event: Json) -> bytes:
        delta, index = _dict(event.get("delta")), event.get("index", 0)
        match delta.get("type"):
            case "text_delta":
                return self._chunk({"content": delta.get("text") or ""})
            case "thinking_delta":
                return self._chunk({"reasoning_content": delta.get("thinking") or ""})
            case "input_json_delta" if index in self._calls and delta.get("partial_json"):
                self._argued.add(index)
                function = {"arguments": delta["partial_json"]}
                return self._chunk({"tool_calls": [{"index": self._calls[index], "function": function}]})
        return b""

    def _end(self, event: Json) -> bytes:
        self._usage = {**self._usage, **{k: v for k, v in _dict(event.get("usage")).items() if v is not None}}
        reason = _dict(event.get("delta")).get("stop_reason")
        if reason is None:
            return b""
        # A call without arguments says so in one format by saying nothing, in the other with an empty object.
        silent = [number for block, number in self._calls.items() if block not in self._argued]
        calls = [{"index": number, "function": {"arguments": "{}"}} for number in silent]
        filled = self._chunk({"tool_calls": calls}) if calls else b""
        self._argued.update(self._calls)
        return filled + self._chunk({}, finish_reason(reason))

    def _stop(self) -> bytes:
        self._is_over = True
        usage = openai_event({**self._head(), "choices": [], "usage": openai_usage(self._usage)})
        return (usage if self._wants_usage else b"") + DONE

    def _failed(self, kind: str, message: str) -> bytes:
        self._is_over = True
        return openai_event({"error": openai_error_object(kind, message)}) + DONE

    def _chunk(self, delta: Json, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return openai_event({**self._head(), "choices": [choice]})

    def _head(self) -> Json:
        return {
            "id": self._id, "object": "chat.completion.chunk", "created": self._created_s, "model": self._model,
        }  # fmt: skip


def _dict(value: Any) -> Json:
    return value if isinstance(value, dict) else {}
