"""A request of OpenAI's chat completions as one of Anthropic's messages. Pure.

What has no counterpart is refused by name. Left out in silence are only hints that change nothing of what a right answer is:
`seed` (best effort by its own definition), `prompt_cache_*`, `store`, `metadata`, `service_tier`, `verbosity`, a message's `name`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hekla.platform.api.wording import shown
from hekla.routing.translation.chat_turns import anthropic_turns
from hekla.routing.translation.problems import (
    Json,
    Untranslatable,
    a_list,
    a_text,
    an_object,
    refuse_others,
    refuse_unless,
    set_if,
)

TO = "Anthropic's messages"

TRANSLATED = frozenset(
    {
        "model", "messages", "max_tokens", "max_completion_tokens", "stop", "temperature", "top_p", "top_k", "stream",
        "stream_options", "tools", "tool_choice", "parallel_tool_calls", "user", "safety_identifier", "response_format",
        "reasoning_effort",
    }
)  # fmt: skip
HINTS = frozenset(
    {"seed", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "store", "metadata", "service_tier", "verbosity"}
)  # fmt: skip
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,), "logprobs": (False,), "top_logprobs": (0,), "logit_bias": ({},), "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0), "modalities": (["text"],), "functions": ([],),
}  # fmt: skip
"""Fields without a counterpart, and the values with which they ask for nothing."""
EFFORTS = ("low", "medium", "high", "xhigh", "max")


def messages_request(chat: Json, *, max_tokens_default: int) -> Json:
    """Raises Untranslatable. `max_tokens_default`: Anthropic's format wants a limit, OpenAI's does not."""
    refuse_others(chat, TRANSLATED | HINTS | NEUTRAL.keys(), "", TO)
    for name, neutral in NEUTRAL.items():
        refuse_unless(chat.get(name), neutral, name, TO)
    system, messages = anthropic_turns(a_list(chat.get("messages"), "messages"))
    made: Json = {"model": chat.get("model"), "max_tokens": _limit(chat, max_tokens_default), "messages": messages}
    set_if(made, "system", system)
    for name in ("top_p", "top_k", "stream"):
        set_if(made, name, chat.get(name))
    fields: dict[str, Callable[[Json], Any]] = {
        "temperature": _temperature, "stop_sequences": _stops, "tools": _tools, "tool_choice": _tool_choice,
        "metadata": _metadata, "output_config": _output_config,
    }  # fmt: skip
    for name, read in fields.items():
        set_if(made, name, read(chat))
    return made


def wants_usage(chat: Json) -> bool:
    """Whether its client expects a usage chunk at a stream's end."""
    options = chat.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _limit(chat: Json, default: int) -> Any:
    limits = [chat[name] for name in ("max_completion_tokens", "max_tokens") if chat.get(name) is not None]
    return limits[0] if limits else default


def _temperature(chat: Json) -> Any:
    value = chat.get("temperature")
    if isinstance(value, (int, float)) and value > 1:
        raise Untranslatable("temperature", f"is {shown(value)}; for {TO} allowed: 0 to 1")
    return value


def _stops(chat: Json) -> list[Any] | None:
    stop = chat.get("stop")
    return [stop] if isinstance(stop, str) else stop


def _metadata(chat: Json) -> Json | None:
    user = chat.get("safety_identifier") or chat.get("user")
    return {"user_id": user} if user else None


def _output_config(chat: Json) -> Json | None:
    made: Json = {}
    effort = chat.get("reasoning_effort")
    refuse_unless(effort, EFFORTS, "reasoning_effort", TO)
    set_if(made, "effort", effort)
    wanted = chat.get("response_format")
    if wanted is not None:
        wanted = an_object(wanted, "response_format")
        refuse_unless(wanted.get("type"), ("text", "json_schema"), "response_format.type", TO)
        if wanted.get("type") == "json_schema":
            named = an_object(wanted.get("json_schema"), "response_format.json_schema")
            schema = an_object(named.get("schema"), "response_format.json_schema.schema")
            made["format"] = {"type": "json_schema", "schema": schema}
    return made or None


def _tools(chat: Json) -> list[Json] | None:
    tools = chat.get("tools")
    if not tools:
        return None
    return [_tool(tool, f"tools[{index}]") for index, tool in enumerate(a_list(tools, "tools"))]


def _tool(tool: Any, path: str) -> Json:
    tool = an_object(tool, path)
    refuse_unless(tool.get("type"), ("function",), f"{path}.type", TO)
    function = an_object(tool.get("function"), f"{path}.function")
    refuse_others(function, ("name", "description", "parameters", "strict"), f"{path}.function", TO)
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    made: Json = {"name": a_text(function.get("name"), f"{path}.function.name"), "input_schema": parameters}
    set_if(made, "description", function.get("description"))
    if function.get("strict"):
        made["strict"] = True
    return made


def _tool_choice(chat: Json) -> Json | None:
    choice, parallel = chat.get("tool_choice"), chat.get("parallel_tool_calls")
    made = None if choice is None else _named_choice(choice)
    if parallel is False and chat.get("tools") and (made is None or made["type"] != "none"):
        made = {**(made or {"type": "auto"}), "disable_parallel_tool_use": True}
    return made if chat.get("tools") else None


def _named_choice(choice: Any) -> Json:
    if isinstance(choice, str):
        refuse_unless(choice, ("auto", "none", "required"), "tool_choice", TO)
        return {"type": {"required": "any"}.get(choice, choice)}
    choice = an_object(choice, "tool_choice")
    refuse_unless(choice.get("type"), ("function",), "tool_choice.type", TO)
    function = an_object(choice.get("function"), "tool_choice.function")
    return {"type": "tool", "name": a_text(function.get("name"), "tool_choice.function.name")}
