"""Going on from token ids: the request to the next engine, and its events as the client's stream has them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from hekla.routing.body import Body
from hekla.routing.continuation.decision import CHAT, CannotContinue, Extend, stops_of
from hekla.routing.continuation.record import Delivered
from hekla.routing.continuation.stopping import StopWatch

CHAT_ONLY = (
    "messages", "max_completion_tokens", "tools", "tool_choice", "parallel_tool_calls", "chat_template", "documents",
    "chat_template_kwargs", "add_generation_prompt", "continue_final_message", "reasoning_effort", "include_reasoning",
    "logprobs", "top_logprobs", "mm_processor_kwargs", "media_io_kwargs", "return_prompt_text",
)  # fmt: skip
"""Fields of a chat that a completion has not, or that the rendered prompt's ids hold already."""

COMPLETION_TOKENS_DEFAULT = 16
"""`max_tokens` of a completion that names none, in OpenAI's API and vLLM's."""

Shape = dict[str, Any]


def extension_body(path: str, body: Body, delivered: Delivered, way: Extend) -> Body:
    """The completion that goes on from the seam. Raises CannotContinue when there is nothing left to generate."""
    choice = delivered.choices[way.choice]
    changes: Shape = {
        "prompt": [*delivered.prompt, *choice.tokens[: way.tokens]],
        "stream": True,
        "return_token_ids": True,
        "max_tokens": _tokens_left(path, body, way.tokens),
        "stop": msgspec.UNSET,
        "n": msgspec.UNSET,
        "truncate_prompt_tokens": msgspec.UNSET,  # the ids are what was left of the prompt
        "add_special_tokens": msgspec.UNSET,
        "response_format": msgspec.UNSET,
        "kv_transfer_params": msgspec.UNSET,
    }
    least = body.get("min_tokens")
    if isinstance(least, int) and least > 0:
        changes["min_tokens"] = max(0, least - way.tokens)
    if path == CHAT:
        changes |= dict.fromkeys(CHAT_ONLY, msgspec.UNSET)
    return body.edited(changes)


def _tokens_left(path: str, body: Body, delivered: int) -> int | None:
    """None is "as many as fit" to vLLM, which is what a chat without a limit gets."""
    limit = body.get("max_tokens")
    if path == CHAT:
        limit = body.get("max_completion_tokens") if "max_completion_tokens" in body else limit
    elif limit is None and "max_tokens" not in body.fields:
        limit = COMPLETION_TOKENS_DEFAULT
    if not isinstance(limit, int):
        return None
    if limit <= delivered:
        raise CannotContinue("its last token had been delivered, but not why it ended")
    return limit - delivered


class Extension:
    """Turns the events of the completion into those the client's stream goes on with."""

    def __init__(self, path: str, body: Body, delivered: Delivered, way: Extend, *, text: str | None = None) -> None:
        """`text` is what the ids up to the seam stand for, when `way.needs_text`. Raises CannotContinue."""
        choice = delivered.choices[way.choice]
        shown = choice.shown
        if text is not None and not text.startswith(shown):
            raise CannotContinue("its token ids do not stand for the text that was delivered")
        self._head, self._is_chat, self._index = delivered.head, path == CHAT, way.choice
        self._prompt_tokens, self._tokens = len(delivered.prompt), way.tokens
        self._offset = choice.text_offset
        self._stops = StopWatch(
            stops_of(body), shown if text is None else text, len(shown), tokens=way.tokens,
            keep=body.is_true("include_stop_str_in_output"), min_tokens=body.get("min_tokens") or 0,
        )  # fmt: skip
        self._wants_usage = _wants_usage(body)
        self._is_over = False
        self.continued_at = way.tokens
        # What the client has not seen is generated again, and counts once.
        del choice.tokens[way.tokens :]
        choice.shown_tokens = len(choice.tokens)

    @property
    def is_over(self) -> bool:
        """A stop string ended the answer: what the engine still sends is not wanted."""
        return self._is_over

    def events(self, event: Shape) -> Iterator[Shape]:
        """Raises ValueError on an event of another form."""
        if self._is_over:
            return
        choices = event.get("choices") or []
        for choice in choices:
            yield from self._choice(choice, event)
        if not choices and isinstance(event.get("usage"), dict):
            yield {**self._head, "choices": [], "usage": self._usage(event["usage"])}

    def end(self) -> Iterator[Shape]:
        """What the answer still lacks when the engine's stream is over or not wanted any more."""
        if self._is_over and self._wants_usage:
            yield {**self._head, "choices": [], "usage": self._usage({})}

    def _choice(self, choice: Shape, event: Shape) -> Iterator[Shape]:
        ids = choice.get("token_ids")
        if not isinstance(ids, list):
            raise CannotContinue("the engine that goes on does not tell its token ids")
        self._tokens += len(ids)
        text = self._stops.feed(choice.get("text") or "", len(ids))
        finish, reason = choice.get("finish_reason"), choice.get("stop_reason")
        if self._stops.found is not None:
            finish, reason, self._is_over = "stop", self._stops.found, True
        elif finish is not None:
            text += self._stops.rest()
        yield self._chunk(choice, event, text, finish, reason)

    def _chunk(self, choice: Shape, event: Shape, text: str, finish: str | None, reason: Any) -> Shape:
        shape: Shape = {"index": self._index}
        shape |= {"delta": {"content": text}} if self._is_chat else {"text": text}
        shape |= {"logprobs": self._logprobs(choice.get("logprobs")), "finish_reason": finish}
        if finish is not None or not self._is_chat:
            shape["stop_reason"] = reason
        shape["token_ids"] = choice["token_ids"]
        chunk = {**self._head, "choices": [shape]}
        if isinstance(event.get("usage"), dict):
            chunk["usage"] = self._usage(event["usage"])
        return chunk

    def _logprobs(self, told: Any) -> Any:
        """A completion's offsets start at the seam; the client's at the answer's start."""
        if not isinstance(told, dict) or not isinstance(told.get("text_offset"), list):
            return told
        return {**told, "text_offset": [self._offset + offset for offset in told["text_offset"]]}

    def _usage(self, told: Shape) -> Shape:
        """One request, one account: its own prompt, all tokens of its answer."""
        usage: Shape = {
            **told, "prompt_tokens": self._prompt_tokens, "total_tokens": self._prompt_tokens + self._tokens,
            "completion_tokens": self._tokens,
        }  # fmt: skip
        details = told.get("prompt_tokens_details")
        if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
            usage["prompt_tokens_details"] = {
                **details, "cached_tokens": min(details["cached_tokens"], self._prompt_tokens)
            }  # fmt: skip
        return usage


def _wants_usage(body: Body) -> bool:
    options = body.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))
