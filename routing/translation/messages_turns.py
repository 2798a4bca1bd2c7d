"""Anthropic's system prompt and turns as the messages of an OpenAI chat. Pure."""

from __future__ import annotations

import json
from typing import Any

from hekla.routing.translation.media import file_of, url_of
from hekla.routing.translation.problems import Json, Untranslatable, a_list, a_text, an_object

TO = "OpenAI's chat completions"
UNSEEN = ("thinking", "redacted_thinking")


def openai_messages(asked: Json) -> list[Json]:
    """Raises Untranslatable."""
    made: list[Json] = []
    if asked.get("system"):
        made.append({"role": "system", "content": _system(asked["system"])})
    for index, turn in enumerate(a_list(asked.get("messages"), "messages")):
        path = f"messages[{index}]"
        turn = an_object(turn, path)
        match turn.get("role"):
            case "user":
                made += _user(turn.get("content"), f"{path}.content")
            case "assistant":
                made.append(_assistant(turn.get("content"), f"{path}.content"))
            case role:
                raise Untranslatable(f"{path}.role", f"is {role!r}; allowed: user, assistant")
    return made


def _system(system: Any) -> Any:
    if isinstance(system, str):
        return system
    return [_text(block, f"system[{index}]") for index, block in enumerate(a_list(system, "system"))]


def _text(block: Any, path: str) -> Json:
    block = an_object(block, path)
    if block.get("type") != "text":
        raise Untranslatable(f"{path}.type", f"is {block.get('type')!r}; for {TO} allowed: text")
    return {"type": "text", "text": a_text(block.get("text"), f"{path}.text")}


def _user(content: Any, path: str) -> list[Json]:
    """The results of tools, each a message of its own, and then what the user says."""
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    results: list[Json] = []
    parts: list[Json] = []
    for index, block in enumerate(a_list(content, path)):
        at = f"{path}[{index}]"
        block = an_object(block, at)
        if block.get("type") == "tool_result":
            if parts:
                raise Untranslatable(at, "is a tool result after other content; allowed: before it")
            results.append(_result(block, at))
        else:
            parts.append(_part(block, at))
    return [*results, *([{"role": "user", "content": parts}] if parts or not results else [])]


def _part(block: Json, path: str) -> Json:
    match block.get("type"):
        case "image":
            return {"type": "image_url", "image_url": {"url": url_of(block.get("source"), f"{path}.source")}}
        case "document":
            return file_of(block, path)
        case "text":
            return _text(block, path)
    raise Untranslatable(
        f"{path}.type", f"is {block.get('type')!r}; for {TO} allowed: text, image, document, tool_result"
    )


def _result(block: Json, path: str) -> Json:
    content = block.get("content")
    if content is None or isinstance(content, str):
        said: Any = content or ""
    else:
        said = [_text(part, f"{path}.content[{i}]") for i, part in enumerate(a_list(content, f"{path}.content"))]
    called = a_text(block.get("tool_use_id"), f"{path}.tool_use_id")
    return {"role": "tool", "tool_call_id": called, "content": said}


def _assistant(content: Any, path: str) -> Json:
    if isinstance(content, str):
        return {"role": "assistant", "content": content}
    texts: list[Json] = []
    calls: list[Json] = []
    for index, block in enumerate(a_list(content, path)):
        at = f"{path}[{index}]"
        block = an_object(block, at)
        if block.get("type") in UNSEEN:
            continue
        if block.get("type") == "tool_use":
            calls.append(_call(block, at))
        else:
            texts.append(_text(block, at))
    if not texts and not calls:
        raise Untranslatable(path, f"holds nothing that {TO} can be given; allowed: text or tool_use")
    made: Json = {"role": "assistant", "content": texts or None}
    return {**made, "tool_calls": calls} if calls else made


def _call(block: Json, path: str) -> Json:
    given = json.dumps(an_object(block.get("input"), f"{path}.input"), ensure_ascii=False)
    function = {"name": a_text(block.get("name"), f"{path}.name"), "arguments": given}
    return {"id": a_text(block.get("id"), f"{path}.id"), "type": "function", "function": function}
