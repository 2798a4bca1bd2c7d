"""The text of a prompt, for estimates and prefix hashes. Pure. What it can't read counts as nothing, never fails."""

from __future__ import annotations

from typing import Any

from hekla.routing.body import Body, MalformedBody

PROMPT_FIELDS = ("prompt", "messages", "input", "instructions")
CHARS_PER_TOKEN = 4


def has_prompt(body: Body) -> bool:
    return any(name in body for name in PROMPT_FIELDS)


def prompt_text(body: Body) -> str:
    """`prompt`, else `messages` (with a top-level `system`) in ChatML, else `instructions` and `input`.

    Raises MalformedBody when the field's text is not valid JSON text.
    """
    if "prompt" in body:
        return text_of(body.get("prompt"))
    if "messages" in body:
        return chatml(body.get("messages"), body.get("system"))
    parts = [text_of(body.get(name)) for name in ("instructions", "input") if name in body]
    return "\n".join(part for part in parts if part)


def estimated_tokens(body: Body, text: str) -> int:
    """Four characters a token; token ids are counted."""
    for name in ("prompt", "input"):
        if name in body:
            count = token_ids(body.get(name))
            if count:
                return count
    return -(-len(text) // CHARS_PER_TOKEN)


def token_ids(value: Any) -> int:
    """How many token ids a prompt of ids (one list, or a list of lists) holds; 0 when it is something else."""
    if not isinstance(value, list) or not value:
        return 0
    if isinstance(value[0], list):
        return sum(token_ids(part) for part in value)
    return len(value) if isinstance(value[0], int) else 0


def output_tokens_max(body: Body) -> int:
    """The smallest limit the client sets on generated tokens; 0 when it sets none."""
    limits = []
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        try:
            value = body.get(name)
        except MalformedBody:
            continue  # the engine will say so
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            limits.append(value)
    return min(limits, default=0)


def is_one_sequence(body: Body) -> bool:
    """False when the engine makes several sequences of the request: a batch of prompts, `n` or `best_of` above 1."""
    try:
        if any(body.get(name) not in (None, 1) for name in ("n", "best_of")) or body.is_true("use_beam_search"):
            return False
        prompt = body.get("prompt") if "messages" not in body else None
    except MalformedBody:
        return False  # the engine will say so
    return not isinstance(prompt, list) or len(prompt) <= 1 or isinstance(prompt[0], int)


def chatml(messages: Any, system: Any = None) -> str:
    turns = [f"<|im_start|>system\n{text_of(system)}<|im_end|>\n"] if system else []
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            role = message.get("role", "user")
            turns.append(f"<|im_start|>{role}\n{text_of(message.get('content'))}<|im_end|>\n")
    return "".join(turns)


def text_of(value: Any) -> str:
    """The text in a string, a list of parts, or a message; images and other media give nothing."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(text for part in value if (text := text_of(part)))
    if isinstance(value, dict):
        return text_of(value["text"] if "text" in value else value.get("content"))
    return ""
