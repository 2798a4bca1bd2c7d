"""A request of Anthropic's messages as one of OpenAI's chat completions. Pure.

What has no counterpart is refused by name. Left out in silence are hints (`cache_control`: OpenAI's servers cache by themselves;
`service_tier`), earlier turns' thinking (no server reads it again), and a tool result's `is_error` (its text says so).
"""

from __future__ import annotations

from typing import Any

from hekla.routing.translation.messages_turns import openai_messages
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

TO = "OpenAI's chat completions"
STOPS_MAX = 4

TRANSLATED = frozenset(
    {
        "model", "max_tokens", "messages", "system", "stop_sequences", "temperature", "top_p", "top_k", "stream", "tools",
        "tool_choice", "metadata", "output_config", "thinking",
    }
)  # fmt: skip
HINTS = frozenset({"cache_control", "service_tier", "diagnostics"})


def chat_request(asked: Json, *, takes_top_k: bool = False) -> Json:
    """Raises Untranslatable. `takes_top_k`: as local engines do, whose format is OpenAI's and more."""
    refuse_others(asked, (TRANSLATED if takes_top_k else TRANSLATED - {"top_k"}) | HINTS, "", TO)
    made: Json = {"model": asked.get("model"), "messages": openai_messages(asked)}
    set_if(made, "max_completion_tokens", asked.get("max_tokens"))
    for name in ("temperature", "top_p", "top_k"):
        set_if(made, name, asked.get(name))
    if asked.get("stream") is not None:
        made["stream"] = asked["stream"]
        if asked["stream"] is True:
            made["stream_options"] = {"include_usage": True}
    if asked.get("stop_sequences"):
        made["stop"] = _stops(asked["stop_sequences"])
    set_if(made, "user", an_object(asked.get("metadata") or {}, "metadata").get("user_id"))
    if asked.get("tools"):
        tools = a_list(asked["tools"], "tools")
        made["tools"] = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]
        made.update(_tool_choice(asked.get("tool_choice")))
    refuse_unless(
        an_object(asked.get("thinking") or {}, "thinking").get("type"), ("disabled", "adaptive"), "thinking.type", TO
    )
    made.update(_output_config(an_object(asked.get("output_config") or {}, "output_config")))
    return made


def _stops(stops: Any) -> list[Any]:
    stops = a_list(stops, "stop_sequences")
    if len(stops) > STOPS_MAX:
        raise Untranslatable("stop_sequences", f"has {len(stops)}; for {TO} allowed: at most {STOPS_MAX}")
    return list(stops)


def _tool(tool: Any, path: str) -> Json:
    tool = an_object(tool, path)
    refuse_unless(tool.get("type"), ("custom",), f"{path}.type", TO)
    known = ("type", "name", "description", "input_schema", "strict", "cache_control", "eager_input_streaming")
    refuse_others(tool, known, path, TO)
    function: Json = {"name": a_text(tool.get("name"), f"{path}.name")}
    set_if(function, "description", tool.get("description"))
    function["parameters"] = an_object(tool.get("input_schema"), f"{path}.input_schema")
    if tool.get("strict"):
        function["strict"] = True
    return {"type": "function", "function": function}


def _tool_choice(choice: Any) -> Json:
    if choice is None:
        return {}
    choice = an_object(choice, "tool_choice")
    refuse_unless(choice.get("type"), ("auto", "any", "none", "tool"), "tool_choice.type", TO)
    made: Json = {"tool_choice": {"any": "required"}.get(choice.get("type", ""), choice.get("type"))}
    if choice.get("type") == "tool":
        name = a_text(choice.get("name"), "tool_choice.name")
        made["tool_choice"] = {"type": "function", "function": {"name": name}}
    if choice.get("disable_parallel_tool_use"):
        made["parallel_tool_calls"] = False
    return made


def _output_config(config: Json) -> Json:
    refuse_others(config, ("effort", "format"), "output_config", TO)
    made: Json = {}
    set_if(made, "reasoning_effort", config.get("effort"))
    if config.get("format") is not None:
        wanted = an_object(config["format"], "output_config.format")
        refuse_unless(wanted.get("type"), ("json_schema",), "output_config.format.type", TO)
        named = {"name": "answer", "schema": wanted.get("schema"), "strict": True}
        made["response_format"] = {"type": "json_schema", "json_schema": named}
    return made
