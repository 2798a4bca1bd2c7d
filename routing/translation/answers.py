"""Whole answers: an Anthropic message as a chat completion, and back. Pure."""

from __future__ import annotations

import json
from typing import Any

from hekla.routing.translation.endings import anthropic_usage, finish_reason, openai_usage, stop_of
from hekla.routing.translation.problems import AnswerUntranslatable, Json


def chat_completion(message: Json, *, created_s: int) -> Json:
    """Raises AnswerUntranslatable. `created_s`: Unix time of the answer, which Anthropic does not tell."""
    blocks = message.get("content")
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise AnswerUntranslatable("the provider's answer has no list of content blocks")
    texts = [str(block.get("text") or "") for block in blocks if block.get("type") == "text"]
    thoughts = [str(block.get("thinking") or "") for block in blocks if block.get("type") == "thinking"]
    calls = [_call(block) for block in blocks if block.get("type") == "tool_use"]
    said: Json = {"role": "assistant", "content": "".join(texts) if texts else None, "refusal": None}
    if thoughts:
        said["reasoning_content"] = "".join(thoughts)
    if calls:
        said["tool_calls"] = calls
    reason = finish_reason(message.get("stop_reason"))
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": reason}
    return {
        "id": message.get("id") or "",
        "object": "chat.completion",
        "created": created_s,
        "model": message.get("model") or "",
        "choices": [choice],
        "usage": openai_usage(message.get("usage")),
    }


def _call(block: Json) -> Json:
    function = {"name": block.get("name") or "", "arguments": json.dumps(block.get("input") or {}, ensure_ascii=False)}
    return {"id": block.get("id") or "", "type": "function", "function": function}


def message(completion: Json) -> Json:
    """Raises AnswerUntranslatable."""
    choices = completion.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    said = choice.get("message") if isinstance(choice, dict) else None
    if choice is None or not isinstance(said, dict):
        raise AnswerUntranslatable("the provider's answer has no choice with a message")
    blocks: list[Json] = [{"type": "text", "text": text} for text in (said.get("content"), said.get("refusal")) if text]
    blocks += [_tool_use(call) for call in said.get("tool_calls") or ()]
    reason, sequence = stop_of(choice)
    return {
        "id": completion.get("id") or "",
        "type": "message",
        "role": "assistant",
        "model": completion.get("model") or "",
        "content": blocks,
        "stop_reason": "refusal" if said.get("refusal") else reason,
        "stop_sequence": sequence,
        "usage": anthropic_usage(completion.get("usage")),
    }


def _tool_use(call: Any) -> Json:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise AnswerUntranslatable("the provider's answer calls a tool that is no function")
    try:
        given = json.loads(function.get("arguments") or "{}")
    except (ValueError, TypeError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise AnswerUntranslatable("the arguments of a tool call in the provider's answer are no JSON object")
    return {"type": "tool_use", "id": call.get("id") or "", "name": function.get("name") or "", "input": given}
