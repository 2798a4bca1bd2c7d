"""The server as OpenAI's own client sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

Make = Callable[..., Any]
HELLO: list[Any] = [{"role": "user", "content": "tell me about basalt"}]


@pytest.fixture(scope="module")
def server(serve: Make) -> Any:
    return serve(
        "--time-scale",
        "0",
        "--enable-lora",
        "--max-loras",
        "4",
        "--max-model-len",
        "1024",
        "--served-model-name",
        "sim",
        "alias",
    )


@pytest.fixture(scope="module")
def client(server: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def connection(server: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as made:
        yield made


def ask(client: openai.OpenAI, **more: Any) -> Any:
    fields: dict[str, Any] = {"model": "sim", "messages": HELLO, "temperature": 0, "max_tokens": 12} | more
    return client.chat.completions.create(**fields)


def test_a_chat_answer_has_the_tokens_asked_for(client: openai.OpenAI) -> None:
    answer = ask(client, extra_body={"ignore_eos": True})
    assert answer.choices[0].finish_reason == "length"
    assert len(answer.choices[0].message.content.split()) == 12
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12


def test_a_stream_gives_the_same_text_and_ends_with_the_usage(client: openai.OpenAI) -> None:
    whole = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_a_repeated_prompt_reports_cached_tokens(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "a prompt of some length " * 8}]
    first, second = (ask(client, messages=messages).usage for _ in range(2))
    assert first.prompt_tokens_details.cached_tokens == 0
    assert second.prompt_tokens_details.cached_tokens >= second.prompt_tokens - 32


def test_the_next_turn_hits_the_cache_up_to_the_last_answer(client: openai.OpenAI) -> None:
    first = ask(client, max_tokens=60, extra_body={"ignore_eos": True})
    messages = [
        *HELLO,
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "go on"},
    ]
    second = ask(client, messages=messages)
    assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.total_tokens - 17


def test_a_partial_answer_is_continued_with_the_same_words(client: openai.OpenAI) -> None:
    whole = ask(client, max_tokens=30, extra_body={"ignore_eos": True}).choices[0].message.content
    cut = " " + " ".join(whole.split()[:11])
    rest = ask(
        client,
        messages=[*HELLO, {"role": "assistant", "content": cut}],
        max_tokens=19,
        extra_body={"ignore_eos": True, "continue_final_message": True, "add_generation_prompt": False},
    )
    assert cut + rest.choices[0].message.content == whole


def test_stop_strings_cut_the_text_and_are_named(client: openai.OpenAI) -> None:
    words = ask(client).choices[0].message.content.split()
    stop = f"{words[2]} {words[3][:2]}"
    answer = ask(client, stop=[stop]).choices[0]
    assert answer.message.content == f" {words[0]} {words[1]} "
    assert (answer.finish_reason, answer.model_extra["stop_reason"]) == ("stop", stop)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in ask(client, stop=[stop], stream=True))
    assert streamed == answer.message.content


def test_several_choices_with_a_temperature_differ_and_a_seed_repeats_them(client: openai.OpenAI) -> None:
    one, two = (ask(client, n=3, temperature=1, seed=4).choices for _ in range(2))
    texts = [choice.message.content for choice in one]
    assert len(set(texts)) == 3
    assert texts == [choice.message.content for choice in two]


def test_logprobs_come_token_by_token(client: openai.OpenAI) -> None:
    choice = ask(client, logprobs=True, top_logprobs=1, extra_body={"ignore_eos": True}).choices[0]
    assert "".join(item.token for item in choice.logprobs.content) == choice.message.content
    assert all(item.logprob <= 0 and item.top_logprobs for item in choice.logprobs.content)


def test_a_json_schema_gives_json_that_fits(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer", "minimum": 1},
            "tags": {"type": "array", "items": {"enum": ["a"]}},
        },
        "required": ["name", "age"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    answer = ask(client, max_tokens=200, response_format=form).choices[0]
    value = json.loads(answer.message.content)
    assert answer.finish_reason == "stop"
    assert isinstance(value["name"], str) and value["age"] >= 1 and value["tags"] == ["a"]


TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest.mark.parametrize(
    ("choice", "finish"), [("required", "tool_calls"), ({"type": "function", "function": {"name": "weather"}}, "stop")]
)
def test_a_forced_tool_is_called(client: openai.OpenAI, choice: Any, finish: str) -> None:
    answer = ask(client, tools=[TOOL], tool_choice=choice, max_tokens=100).choices[0]
    call = answer.message.tool_calls[0]
    assert answer.finish_reason == finish
    assert call.function.name == "weather"
    assert set(json.loads(call.function.arguments)) == {"city"}
    chunks = [
        chunk.choices[0].delta.tool_calls
        for chunk in ask(client, tools=[TOOL], tool_choice=choice, max_tokens=100, stream=True)
    ]
    pieces = [calls[0].function for calls in chunks if calls]
    assert pieces[0].name == "weather"
    assert "".join(piece.arguments or "" for piece in pieces) == call.function.arguments


def test_completions_take_text_lists_and_token_ids(client: openai.OpenAI, server: Any) -> None:
    tokens = httpx.post(f"{server.url}/tokenize", json={"prompt": "one two"}).json()["tokens"]
    plain: dict[str, Any] = {"model": "sim", "temperature": 0, "max_tokens": 4}
    text = client.completions.create(prompt="one two", **plain).choices[0].text
    assert client.completions.create(prompt=tokens, **plain).choices[0].text == text
    both = client.completions.create(prompt=["one two", "three"], **plain).choices
    assert [choice.index for choice in both] == [0, 1]
    assert both[0].text == text != both[1].text
    assert client.completions.create(prompt="one two", echo=True, **plain).choices[0].text == "one two" + text


def test_text_survives_tokenize_and_detokenize(server: Any) -> None:
    text = "Héllo  wörld\n日本"
    tokens = httpx.post(f"{server.url}/tokenize", json={"prompt": text}).json()
    assert tokens["count"] == len(tokens["tokens"])
    assert httpx.post(f"{server.url}/detokenize", json={"tokens": tokens["tokens"]}).json()["prompt"] == text


def test_adapters_load_answer_as_models_and_unload(client: openai.OpenAI, server: Any) -> None:
    base = ask(client).choices[0].message.content
    load = httpx.post(f"{server.url}/v1/load_lora_adapter", json={"lora_name": "poet", "lora_path": "/poet"})
    assert load.status_code == 200
    assert [card.id for card in client.models.list()] == ["sim", "alias", "poet"]
    assert ask(client, model="poet").choices[0].message.content != base
    again = httpx.post(f"{server.url}/v1/load_lora_adapter", json={"lora_name": "poet", "lora_path": "/poet"})
    assert again.status_code == 400
    assert httpx.post(f"{server.url}/v1/unload_lora_adapter", json={"lora_name": "poet"}).status_code == 200
    assert httpx.post(f"{server.url}/v1/unload_lora_adapter", json={"lora_name": "poet"}).status_code == 404
    with pytest.raises(openai.NotFoundError):
        ask(client, model="poet")


def test_responses_work_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="sim", input="tell me", max_output_tokens=5, temperature=0)
    assert whole.status in ("completed", "incomplete")
    assert whole.usage is not None and whole.usage.output_tokens <= 5
    events = list(
        client.responses.create(model="sim", input="tell me", max_output_tokens=5, temperature=0, stream=True)
    )
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    assert events[0].type == "response.created"


def test_messages_work_whole_and_streamed(server: Any) -> None:
    body = {
        "model": "sim",
        "max_tokens": 5,
        "temperature": 0,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    }
    whole = httpx.post(f"{server.url}/v1/messages", json=body).json()
    assert whole["stop_reason"] in ("max_tokens", "end_turn")
    lines = httpx.post(f"{server.url}/v1/messages", json=body | {"stream": True}).text.splitlines()
    data = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert [item["type"] for item in data][:2] == ["message_start", "content_block_start"]
    assert [item["type"] for item in data][-2:] == ["message_delta", "message_stop"]
    text = "".join(item["delta"]["text"] for item in data if item["type"] == "content_block_delta")
    assert text == whole["content"][0]["text"]


def test_the_request_id_comes_back(server: Any) -> None:
    body = {"model": "sim", "prompt": "x", "max_tokens": 1}
    answer = httpx.post(f"{server.url}/v1/completions", json=body, headers={"X-Request-Id": "my-id"})
    assert answer.headers["x-request-id"] == "my-id"
    assert answer.json()["id"] == "cmpl-my-id"


@pytest.mark.parametrize(("form", "start"), [("TEXT", "TEXT named_metrics.kv_cache_usage_perc="), ("JSON", "JSON {")])
def test_the_load_comes_with_the_answer_when_asked_for(server: Any, form: str, start: str) -> None:
    for stream in (False, True):
        body = {"model": "sim", "prompt": "x", "max_tokens": 1, "stream": stream}
        headers = {"endpoint-load-metrics-format": form}
        answer = httpx.post(f"{server.url}/v1/completions", json=body, headers=headers)
        assert answer.headers["endpoint-load-metrics"].startswith(start)


BAD = [
    ("chat/completions", "{nonsense", 400, "JSON decode error"),
    ("chat/completions", "[]", 400, "Expected `object`"),
    ("chat/completions", "{}", 400, "messages"),
    ("chat/completions", '{"messages": []}', 400, "at least one message"),
    ("chat/completions", '{"messages": [{"role": "robot", "content": "x"}]}', 400, "'robot' is not one of"),
    ("chat/completions", '{"messages": [{"role": "user", "content": 5}]}', 400, "not int"),
    ("chat/completions", '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', 400, "multimodal"),
    ("chat/completions", '{"messages": [{"role": "user", "content": "x"}], "temperature": -1}', 400, "temperature"),
    ("chat/completions", '{"messages": [{"role": "user", "content": "x"}], "n": 0}', 400, "n must be"),
    ("chat/completions", '{"messages": [{"role": "user", "content": "x"}], "tool_choice": "x"}', 400, "tool_choice"),
    (
        "chat/completions",
        '{"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_schema", '
        + '"json_schema": {"schema": {"type": "array", "minItems": "x"}}}}',
        400,
        "JSON schema",
    ),
    ("completions", '{"prompt": null}', 400, "prompt"),
    ("completions", '{"prompt": [1, -2]}', 400, "prompt"),
    ("completions", '{"prompt": ""}', 400, "at least one token"),
    ("completions", '{"prompt": "x", "max_tokens": 0}', 400, "max_tokens must be at least 1"),
    ("completions", '{"prompt": "x", "max_tokens": 5000}', 400, "maximum context length is 1024 tokens"),
    ("completions", json.dumps({"prompt": "word " * 3000}), 400, "maximum context length is 1024 tokens"),
    ("completions", '{"prompt": "x", "model": "nope"}', 404, "The model `nope` does not exist."),
    ("completions", '{"prompt": "x", "stream_options": {}}', 400, "Stream options"),
    ("embeddings", '{"input": "x"}', 400, "does not support Embeddings API"),
    ("nothing", "{}", 404, "Not Found"),
]


@pytest.mark.parametrize(("path", "body", "status", "message"), BAD)
def test_a_bad_request_is_refused_in_vllms_shape(server: Any, path: str, body: str, status: int, message: str) -> None:
    answer = httpx.post(f"{server.url}/v1/{path}", content=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert message in error["message"]
    assert error["code"] == status
    assert set(error) == {"message", "type", "param", "code"}


def test_messages_are_refused_in_anthropics_shape(server: Any) -> None:
    body = {"model": "nope", "max_tokens": 1, "messages": HELLO}
    answer = httpx.post(f"{server.url}/v1/messages", json=body)
    assert answer.status_code == 404
    assert answer.json() == {
        "type": "error",
        "error": {"type": "NotFoundError", "message": "The model `nope` does not exist."},
    }


def test_the_wrong_method_is_refused(server: Any) -> None:
    assert httpx.get(f"{server.url}/v1/chat/completions").status_code == 405


def test_the_small_endpoints_answer(server: Any) -> None:
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert httpx.get(f"{server.url}/ping").status_code == 200
    assert httpx.get(f"{server.url}/load").json() == {"server_load": 0}
    assert "version" in httpx.get(f"{server.url}/version").json()
    assert httpx.get(f"{server.url}/kv_event_sources").json() == {}
    assert httpx.post(f"{server.url}/reset_prefix_cache").json() == {"success": True}


KEYS = (
    *("messages", "role", "content", "type", "text", "function", "name", "parameters", "properties", "items", "enum"),
    *("response_format", "json_schema", "schema", "tools", "tool_choice", "stop", "n", "max_tokens", "temperature"),
    *("min_tokens", "seed", "kv_transfer_params", "structured_outputs", "choice", "$ref", "allOf", "anyOf", "minItems"),
    *("prompt", "echo", "logprobs", "stream", "stream_options", "system", "input", "cache_salt", "priority", "format"),
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    path=st.sampled_from(["chat/completions", "completions", "messages", "responses"]),
    changes=st.dictionaries(st.sampled_from(KEYS), ANY_JSON, min_size=1, max_size=3),
)
def test_no_body_whatever_is_answered_with_500(connection: httpx.Client, path: str, changes: dict[str, Any]) -> None:
    body = {"messages": HELLO, "prompt": "x", "input": "x", "max_tokens": 2} | changes
    try:
        content = json.dumps(body).encode()
    except UnicodeEncodeError:
        return
    answer = connection.post(f"/v1/{path}", content=content)
    assert answer.status_code in (200, 400, 404)


def test_the_server_loads_no_heavy_library() -> None:
    heavy = ("torch", "ray", "transformers", "pydantic", "starlette", "numpy", "vllm")
    code = f"import sys, hekla.deployments.simengine.__main__; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
