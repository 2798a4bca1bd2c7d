"""The messages of an OpenAI chat as Anthropic's system prompt and turns. Pure.

A tool's result is a message of its own in one format and a block of the user's turn in the other; the results that follow one
another become one turn, with what the user says then at its end.
"""

from __future__ import annotations

import json
from typing import Any

from hekla.routing.translation.media import document_of, source_of
from hekla.routing.translation.problems import Json, Untranslatable, a_list, a_text, an_object, refuse_others

TO = "Anthropic's messages"
SYSTEM_ROLES = ("system", "developer")


def anthropic_turns(messages: list[Any]) -> tuple[Any, list[Json]]:
    """The system prompt (None without) and the turns. Raises Untranslatable."""
    system: list[Json] = []
    turns: list[Json] = []
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        message = an_object(message, path)
        role = message.get("role")
        if role in SYSTEM_ROLES:
            if turns:
                raise Untranslatable(
                    f"{path}.role", f"is {role!r} after the conversation has begun; for {TO} allowed: first"
                )
            system += _texts(message.get("content"), f"{path}.content")
        elif role == "tool":
            _add_results(turns, _result(message, path))
        elif role == "user":
            _add_user(turns, _user(message, path))
        elif role == "assistant":
            turns.append(_assistant(message, path))
        else:
            raise Untranslatable(f"{path}.role", f"is {role!r}; allowed: system, developer, user, assistant, tool")
    if len(system) == 1:
        return system[0]["text"], turns
    return system or None, turns


def _add_results(turns: list[Json], result: Json) -> None:
    if turns and _holds_results(turns[-1]):
        turns[-1]["content"].append(result)
    else:
        turns.append({"role": "user", "content": [result]})


def _add_user(turns: list[Json], turn: Json) -> None:
    if turns and _holds_results(turns[-1]):
        content = turn["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        turns[-1]["content"] += blocks
    else:
        turns.append(turn)


def _holds_results(turn: Json) -> bool:
    """Only results so far: text behind them has closed the turn."""
    content = turn["content"]
    is_list = turn["role"] == "user" and isinstance(content, list)
    return is_list and bool(content) and content[-1]["type"] == "tool_result"


def _user(message: Json, path: str) -> Json:
    refuse_others(message, ("role", "content", "name"), path, TO)
    content = message.get("content")
    if isinstance(content, str):
        return {"role": "user", "content": content}
    parts = a_list(content, f"{path}.content")
    return {"role": "user", "content": [_part(part, f"{path}.content[{i}]") for i, part in enumerate(parts)]}


def _part(part: Any, path: str) -> Json:
    part = an_object(part, path)
    match part.get("type"):
        case "text":
            return {"type": "text", "text": a_text(part.get("text"), f"{path}.text")}
        case "image_url":
            image = an_object(part.get("image_url"), f"{path}.image_url")
            url = a_text(image.get("url"), f"{path}.image_url.url")
            return {"type": "image", "source": source_of(url, f"{path}.image_url.url")}
        case "file":
            return document_of(part, path)
    raise Untranslatable(f"{path}.type", f"is {part.get('type')!r}; for {TO} allowed: text, image_url, file")


def _assistant(message: Json, path: str) -> Json:
    known = (
        "role",
        "content",
        "name",
        "tool_calls",
        "refusal",
        "reasoning_content",
        "reasoning",
        "annotations",
        "audio",
    )
    refuse_others(message, known, path, TO)
    if message.get("audio") is not None:
        raise Untranslatable(f"{path}.audio", f"can't be translated for {TO}")
    content = message.get("content")
    blocks = _texts(content, f"{path}.content") if content else []
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        blocks.append({"type": "text", "text": message["refusal"]})
    calls = a_list(message.get("tool_calls") or [], f"{path}.tool_calls")
    blocks += [_tool_use(call, f"{path}.tool_calls[{index}]") for index, call in enumerate(calls)]
    if not blocks:
        raise Untranslatable(f"{path}.content", f"is empty; for {TO} allowed: text or tool calls")
    if isinstance(content, str) and len(blocks) == 1 and blocks[0]["type"] == "text":
        return {"role": "assistant", "content": content}
    return {"role": "assistant", "content": blocks}


def _tool_use(call: Any, path: str) -> Json:
    call = an_object(call, path)
    function = an_object(call.get("function"), f"{path}.function")
    try:
        given = json.loads(a_text(function.get("arguments") or "{}", f"{path}.function.arguments"))
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise Untranslatable(f"{path}.function.arguments", "is no JSON object; allowed: one")
    name, called = a_text(function.get("name"), f"{path}.function.name"), a_text(call.get("id"), f"{path}.id")
    return {"type": "tool_use", "id": called, "name": name, "input": given}


def _result(message: Json, path: str) -> Json:
    refuse_others(message, ("role", "content", "tool_call_id", "name"), path, TO)
    content = message.get("content")
    said: Any = content if isinstance(content, str) else _texts(content, f"{path}.content")
    called = a_text(message.get("tool_call_id"), f"{path}.tool_call_id")
    return {"type": "tool_result", "tool_use_id": called, "content": said}


def _texts(content: Any, path: str) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    blocks = []
    for index, part in enumerate(a_list(content, path)):
        part = an_object(part, f"{path}[{index}]")
        kind = part.get("type")
        if kind not in ("text", "refusal"):
            raise Untranslatable(f"{path}[{index}].type", f"is {kind!r}; for {TO} allowed: text")
        blocks.append({"type": "text", "text": a_text(part.get(kind), f"{path}[{index}].{kind}")})
    return blocks
