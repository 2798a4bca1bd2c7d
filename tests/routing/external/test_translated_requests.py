"""Requests from one wire format into the other: what is said, what is left out, and what is refused by its name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hekla.routing.translation.chat_request import messages_request
from hekla.routing.translation.messages_request import chat_request
from hekla.routing.translation.problems import Untranslatable

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PNG = "data:image/png;base64,aGk="
HI = [{"role": "user", "content": "hi"}]


def to_messages(**chat: Any) -> dict[str, Any]:
    return messages_request({"model": "m", "messages": HI, **chat}, max_tokens_default=4096)


def to_chat(**asked: Any) -> dict[str, Any]:
    return chat_request({"model": "m", "max_tokens": 9, "messages": HI, **asked})


CHAT_FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"max_tokens": 4096}),
    ({"max_tokens": 5}, {"max_tokens": 5}),
    ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 6}),
    ({"stop": "x"}, {"stop_sequences": ["x"]}),
    ({"stop": ["x", "y"]}, {"stop_sequences": ["x", "y"]}),
    ({"temperature": 0.5, "top_p": 0.9, "top_k": 4}, {"temperature": 0.5, "top_p": 0.9, "top_k": 4}),
    ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
    ({"user": "u"}, {"metadata": {"user_id": "u"}}),
    ({"safety_identifier": "s", "user": "u"}, {"metadata": {"user_id": "s"}}),
    ({"reasoning_effort": "high"}, {"output_config": {"effort": "high"}}),
    ({"response_format": {"type": "text"}}, {}),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    ),
    ({"n": 1, "logprobs": False, "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}}, {}),
    ({"seed": 3, "store": False, "prompt_cache_key": "k", "service_tier": "auto", "metadata": {"a": "b"}}, {}),
    ({"tool_choice": "none"}, {}),
]


@pytest.mark.parametrize(("chat", "expected"), CHAT_FIELDS)
def test_fields_of_a_chat_become_those_of_messages(chat: dict[str, Any], expected: dict[str, Any]) -> None:
    made = to_messages(**chat)
    assert {"model": "m", "messages": HI, "max_tokens": made["max_tokens"], **expected} == made


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        ("auto", None, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        ("required", None, {"type": "any"}),
        ({"type": "function", "function": {"name": "f"}}, False, {"type": "tool", "name": "f", "disable_parallel_tool_use": True}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", True, {"type": "any"}),
    ],
)  # fmt: skip
def test_the_choice_of_a_tool_is_translated(choice: Any, parallel: Any, expected: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}}
    made = to_messages(tools=[tool], tool_choice=choice, parallel_tool_calls=parallel)
    assert made["tools"] == [{"name": "f", "description": "d", "input_schema": SCHEMA, "strict": True}]
    assert made.get("tool_choice") == expected


def test_a_conversation_with_tools_and_images_becomes_turns() -> None:
    call = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"city": "Reykjavík"}'}}
    other = {"id": "t2", "type": "function", "function": {"name": "g", "arguments": ""}}
    system, turns = (made := to_messages(messages=[
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [
            {"type": "text", "text": "what is it?"},
            {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://a/b.png"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="}},
        ]},
        {"role": "assistant", "content": "let me see", "tool_calls": [call, other], "refusal": None},
        {"role": "tool", "tool_call_id": "t1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "t2", "content": [{"type": "text", "text": "cold"}]},
        {"role": "user", "content": "so?", "name": "ann"},
    ]))["system"], made["messages"]  # fmt: skip
    assert system == "be brief"
    assert turns[0]["content"] == [
        {"type": "text", "text": "what is it?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
        {"type": "image", "source": {"type": "url", "url": "https://a/b.png"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="}, "title": "a.pdf"},
    ]  # fmt: skip
    assert turns[1]["content"] == [
        {"type": "text", "text": "let me see"},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"city": "Reykjavík"}},
        {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
    ]
    assert turns[2:] == [
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"},
                {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "cold"}]},
                {"type": "text", "text": "so?"},
            ],
        }
    ], "results of one turn are one turn, with what the user says then behind them"


@pytest.mark.parametrize(
    ("chat", "field"),
    [
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"temperature": 1.5}, "temperature"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"reasoning_effort": "minimal"}, "reasoning_effort"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": 5}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "any"}, "tool_choice"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [*HI, {"role": "system", "content": "x"}]}, "messages[1].role"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://x"}}]}]},
         "messages[0].content[0].image_url.url"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
         "messages[0].content[0].file"),
        ({"messages": [{"role": "assistant", "content": ""}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "["}}]}]},
         "messages[0].tool_calls[0].function.arguments"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    ],
)  # fmt: skip
def test_what_anthropic_can_not_be_asked_is_refused_by_name(chat: dict[str, Any], field: str) -> None:
    with pytest.raises(Untranslatable) as refused:
        to_messages(**chat)
    assert refused.value.field == field


MESSAGES_FIELDS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"temperature": 1, "top_p": 0.5}, {"temperature": 1, "top_p": 0.5}),
    ({"stop_sequences": ["a"]}, {"stop": ["a"]}),
    ({"stop_sequences": []}, {}),
    ({"metadata": {"user_id": "u"}}, {"user": "u"}),
    ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
    ({"stream": False}, {"stream": False}),
    ({"thinking": {"type": "adaptive"}}, {}),
    ({"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
    (
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}},
    ),
    (
        {"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]},
        {"messages": [{"role": "system", "content": [{"type": "text", "text": "s"}]}, *HI]},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "expected"), MESSAGES_FIELDS)
def test_fields_of_messages_become_those_of_a_chat(asked: dict[str, Any], expected: dict[str, Any]) -> None:
    assert to_chat(**asked) == {"model": "m", "messages": HI, "max_completion_tokens": 9, **expected}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, {}),
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any", "disable_parallel_tool_use": True}, {"tool_choice": "required", "parallel_tool_calls": False}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "f"}, {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
    ],
)
def test_the_choice_of_a_tool_is_translated_back(choice: Any, expected: dict[str, Any]) -> None:
    made = to_chat(tools=[{"name": "f", "input_schema": SCHEMA, "cache_control": {}}], tool_choice=choice)
    assert made.pop("tools") == [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]
    assert made == {"model": "m", "messages": HI, "max_completion_tokens": 9, **expected}


def test_turns_with_tools_and_images_become_messages() -> None:
    made = to_chat(messages=[
        {"role": "user", "content": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
            {"type": "image", "source": {"type": "url", "url": "https://a/b.png"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
        ]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "a"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"city": "Ísafjörður"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "r"}], "is_error": True},
            {"type": "text", "text": "well?"},
        ]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]},
    ])["messages"]  # fmt: skip
    assert made[0]["content"] == [
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "image_url", "image_url": {"url": "https://a/b.png"}},
        {"type": "text", "text": "words"},
    ]
    assert made[1]["content"] == [{"type": "text", "text": "a"}]
    (call,) = made[1]["tool_calls"]
    assert (call["id"], json.loads(call["function"]["arguments"])) == ("t", {"city": "Ísafjörður"})
    assert made[2:] == [
        {"role": "tool", "tool_call_id": "t", "content": [{"type": "text", "text": "r"}]},
        {"role": "user", "content": [{"type": "text", "text": "well?"}]},
        {"role": "tool", "tool_call_id": "t", "content": ""},
    ]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"top_k": 5}, "top_k"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.type"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": []}, "mcp_servers"),
        ({"stop_sequences": list("abcde")}, "stop_sequences"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "search_result"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}]},
         "messages[0].content[0].source.type"),
        ({"messages": [{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": {}}]}]}]},
         "messages[0].content[0].content[0].type"),
        ({"messages": [{"role": "assistant", "content": [{"type": "thinking", "thinking": "x"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ],
)  # fmt: skip
def test_what_openai_can_not_be_asked_is_refused_by_name(asked: dict[str, Any], field: str) -> None:
    with pytest.raises(Untranslatable) as refused:
        to_chat(**asked)
    assert refused.value.field == field


def test_a_local_engine_takes_top_k() -> None:
    asked = {"model": "m", "max_tokens": 9, "messages": HI, "top_k": 5}
    assert chat_request(asked, takes_top_k=True)["top_k"] == 5


words = st.text(min_size=1, max_size=8)
names = st.from_regex(r"[a-z]{1,6}", fullmatch=True)
arguments = st.dictionaries(
    names, st.one_of(words, st.integers(-9, 9), st.booleans(), st.lists(words, max_size=2)), max_size=3
)
images = st.sampled_from([PNG, "https://a/b.png"])
user_parts = st.lists(
    st.one_of(
        st.builds(lambda text: {"type": "text", "text": text}, words),
        st.builds(lambda url: {"type": "image_url", "image_url": {"url": url}}, images),
    ),
    min_size=1, max_size=3,
)  # fmt: skip


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [{"role": "system", "content": draw(words)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        made.append({"role": "user", "content": draw(st.one_of(words, user_parts))})
        calls = draw(st.lists(st.tuples(names, arguments), max_size=2))
        text = draw(st.one_of(words, st.none())) if calls else draw(words)
        content = [{"type": "text", "text": text}] if calls and text else text
        said: dict[str, Any] = {"role": "assistant", "content": content}
        if calls:
            said["tool_calls"] = [
                {"id": f"t{i}", "type": "function", "function": {"name": name, "arguments": json.dumps(given, ensure_ascii=False)}}
                for i, (name, given) in enumerate(calls)
            ]  # fmt: skip
        made.append(said)
        made += [{"role": "tool", "tool_call_id": f"t{i}", "content": draw(words)} for i in range(len(calls))]
        if calls:  # so that no user's words follow the results, which join them in one turn
            made.append({"role": "assistant", "content": draw(words)})
    return made


@settings(max_examples=150, deadline=None)
@given(conversations(), st.integers(1, 99), st.lists(words, max_size=4))
def test_a_conversation_goes_there_and_back_unchanged(messages: Any, limit: int, stops: list[str]) -> None:
    chat: dict[str, Any] = {"model": "m", "messages": messages, "max_completion_tokens": limit}
    if stops:
        chat["stop"] = stops
    assert chat_request(messages_request(chat, max_tokens_default=1)) == chat
