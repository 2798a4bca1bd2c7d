"""The whole request again: what the client has already is compared and left out, the rest is passed on. Pure.

Two engines cut the same answer into other chunks, so texts are compared, not chunks: each channel of each choice (its
text, its reasoning, the arguments of its third tool call) has its own progress.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hekla.routing.continuation.decision import CannotContinue
from hekla.routing.continuation.record import TEXT_FIELDS, Choice, Delivered

Shape = dict[str, Any]


@dataclass
class _Progress:
    """How much of one choice has come again."""

    texts: dict[str, str]
    """What the client had when the engine was lost, by channel."""
    has_role: bool
    finish: str | None
    tokens: list[int]
    logprobs: int
    untold: bool
    seen: dict[str, int] = field(default_factory=dict)
    tokens_seen: int = 0
    logprobs_seen: int = 0

    @classmethod
    def of(cls, choice: Choice) -> _Progress:
        texts = {channel: text.getvalue() for channel, text in choice.texts.items()}
        return cls(texts, choice.has_role, choice.finish, list(choice.tokens), choice.logprobs, choice.untold)

    def text(self, channel: str, text: str) -> str:
        """The part of it that is new. Raises CannotContinue when the rest is not what the client has."""
        start = self.seen.get(channel, 0)
        known = self.texts.get(channel, "")[start : start + len(text)]
        if not text.startswith(known):
            raise CannotContinue("another engine's answer to the same request is a different one")
        self.seen[channel] = start + len(text)
        return text[len(known) :]

    def ids(self, ids: list[int]) -> list[int]:
        start = self.tokens_seen
        known = [] if self.untold else self.tokens[start : start + len(ids)]
        if ids[: len(known)] != known:
            raise CannotContinue("another engine's answer to the same request has different tokens")
        self.tokens_seen += len(ids)
        return ids[max(0, len(self.tokens) - start) :]

    @property
    def is_behind(self) -> bool:
        """Something the client has did not come again."""
        return any(self.seen.get(channel, 0) < len(text) for channel, text in self.texts.items())


class Replay:
    """Turns the events of the second answer into the rest of the first one."""

    is_over = False

    def __init__(self, delivered: Delivered) -> None:
        self._head = dict(delivered.head)
        self._choices = {index: _Progress.of(choice) for index, choice in delivered.choices.items()}
        self._had_usage = delivered.has_usage

    def events(self, event: Shape) -> Iterator[Shape]:
        """Raises CannotContinue when the answer is a different one."""
        choices = event.get("choices") or []
        if not choices:
            if not self._had_usage:
                yield {**event, **self._head}
            return
        kept = [shape for choice in choices if (shape := self._choice(choice)) is not None]
        if kept:
            yield {**event, **self._head, "choices": kept}

    def end(self) -> Iterator[Shape]:
        """Raises CannotContinue when the second answer was shorter."""
        if any(one.is_behind for one in self._choices.values()):
            raise CannotContinue("another engine's answer to the same request is shorter")
        yield from ()

    def _choice(self, choice: Shape) -> Shape | None:
        """None when the client has all of it."""
        had = self._choices.get(choice.get("index", 0))
        if had is None:
            return choice
        shape, is_new = dict(choice), False
        if isinstance(text := shape.get("text"), str):
            shape["text"] = had.text("text", text)
            is_new = bool(shape["text"])
        if isinstance(shape.get("delta"), dict):
            shape["delta"] = _delta(shape["delta"], had)
            is_new = bool(shape["delta"])
        if isinstance(shape.get("token_ids"), list):
            shape["token_ids"] = had.ids(shape["token_ids"])
            is_new = is_new or bool(shape["token_ids"])
        if isinstance(shape.get("logprobs"), dict):
            shape["logprobs"] = _logprobs(shape["logprobs"], had)
        if had.finish is not None:
            shape["finish_reason"] = None
        return shape if is_new or shape.get("finish_reason") else None


def _delta(delta: Shape, had: _Progress) -> Shape:
    fresh = dict(delta)
    if had.has_role:
        fresh.pop("role", None)
    for name in TEXT_FIELDS:
        if isinstance(text := fresh.get(name), str):
            fresh[name] = had.text(name, text)
            if not fresh[name]:
                del fresh[name]
    calls = fresh.pop("tool_calls", None)
    if isinstance(calls, list) and (kept := [call for one in calls if (call := _tool_call(one, had)) is not None]):
        fresh["tool_calls"] = kept
    return {name: value for name, value in fresh.items() if value is not None}


def _tool_call(call: Shape, had: _Progress) -> Shape | None:
    """Ids of tool calls are drawn by chance: once the client has one, it is that call's."""
    index, function = call.get("index", 0), dict(call.get("function") or {})
    named = f"tool.{index}.name"
    is_known = named in had.texts
    for part in ("name", "arguments"):
        if isinstance(text := function.get(part), str):
            function[part] = had.text(f"tool.{index}.{part}", text)
            if not function[part] and is_known:
                del function[part]
    if not is_known:
        return {**call, "function": function}
    return {"index": index, "function": function} if function else None


def _logprobs(told: Shape, had: _Progress) -> Shape | None:
    """Without the entries the client has."""
    lists = {name: value for name, value in told.items() if isinstance(value, list)}
    count = max(map(len, lists.values()), default=0)
    known = min(count, max(0, had.logprobs - had.logprobs_seen))
    had.logprobs_seen += count
    if known == count:
        return None
    return {**told, **{name: value[known:] for name, value in lists.items()}}
