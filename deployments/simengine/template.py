"""The chat template: ChatML, with tools listed in a system turn of their own."""

from __future__ import annotations

from typing import Any

import msgspec

from hekla.deployments.simengine.refusal import Refusal
from hekla.deployments.simengine.tokens import TURN_END, TURN_START, encode

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
Message = dict[str, Any]


def render_chat(
    messages: list[Message],
    tools: list[dict[str, Any]] | None = None,
    *,
    open_answer: bool = True,
    continue_last: bool = False,
) -> list[int]:
    """Prompt tokens of a conversation.

    `open_answer` ends with the start of the assistant's turn; `continue_last` leaves the last turn open instead, so that the
    model goes on in the middle of it. Raises Refusal.
    """
    if not messages:
        raise Refusal("messages: at least one message is needed", param="messages")
    if open_answer and continue_last:
        raise Refusal("continue_final_message and add_generation_prompt cannot both be true", param="messages")
    tokens = _turn("system", "# Tools\n" + msgspec.json.encode(tools).decode()) if tools else []
    for index, message in enumerate(messages):
        tokens += _turn(_role(message, index), message_text(message, index))
    if continue_last:
        del tokens[-2:]
    if open_answer:
        tokens.append(TURN_START)
        tokens += encode("assistant\n")
    return tokens


def _turn(role: str, text: str) -> list[int]:
    return [TURN_START, *encode(f"{role}\n{text}"), TURN_END, *encode("\n")]


def _role(message: Message, index: int) -> str:
    role = message.get("role")
    if role not in ROLES:
        raise Refusal(
            f"messages[{index}].role: {role!r} is not one of {', '.join(ROLES)}", param=f"messages[{index}].role"
        )
    return str(role)


def message_text(message: Message, index: int) -> str:
    content = message.get("content")
    text = content if isinstance(content, str) else _parts_text(content, index)
    if calls := message.get("tool_calls"):
        text += msgspec.json.encode(calls).decode()
    return text


def _parts_text(content: Any, index: int) -> str:
    path = f"messages[{index}].content"
    if content is None:
        return ""
    if not isinstance(content, list):
        raise Refusal(f"{path}: a string or a list of parts is needed, not {type(content).__name__}", param=path)
    texts: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        text = (
            part
            if isinstance(part, str)
            else part.get("text") or part.get("content")
            if isinstance(part, dict)
            else None
        )
        if kind in ("image_url", "input_image", "image", "input_audio", "audio_url", "video_url"):
            raise Refusal(f"{path}: this is not a multimodal model; `{kind}` parts are not accepted", param=path)
        if not isinstance(text, str):
            raise Refusal(f"{path}: a part needs a text", param=path)
        texts.append(text)
    return "\n".join(texts)
