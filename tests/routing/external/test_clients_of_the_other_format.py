"""The vendors' own clients, unmodified, against a provider that speaks the other vendor's format."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import openai
import pytest
from aiohttp import web

from hekla.routing.config import RoutingSettings
from hekla.routing.translation.settings import TranslationSettings

Json = dict[str, Any]
TOOL: Json = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
USAGE = {"input_tokens": 4, "cache_read_input_tokens": 6, "output_tokens": 3}


async def claude(request: web.Request) -> web.StreamResponse:
    """Anthropic's API: calls the tool it is offered, else says hello."""
    asked = json.loads(await request.read())
    if asked["model"] == "overloaded":
        error = {"type": "overloaded_error", "message": "Overloaded"}
        return web.json_response({"type": "error", "error": error}, status=529)
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Höfn"}}
    block: Json = call if asked.get("tools") else {"type": "text", "text": "hello"}
    whole = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"], "content": [block],
        "stop_reason": "tool_use" if asked.get("tools") else "end_turn", "stop_sequence": None, "usage": USAGE,
    }  # fmt: skip
    if not asked.get("stream"):
        return web.json_response(whole)
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    begun = {**block, "input": {}} if asked.get("tools") else {"type": "text", "text": ""}
    parts = ['{"city": ', '"Höfn"}'] if asked.get("tools") else ["hel", "lo"]
    kind, field = ("input_json_delta", "partial_json") if asked.get("tools") else ("text_delta", "text")
    events: list[Json] = [
        {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": begun},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": kind, field: part}} for part in parts),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": whole["stop_reason"]}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]
    for event in events:
        await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
    return response


async def gpt(request: web.Request) -> web.StreamResponse:
    """OpenAI's API: calls the tool it is offered, else says hello."""
    asked = json.loads(await request.read())
    if asked["model"] == "limited":
        return web.json_response({"error": {"message": "slow", "type": "requests", "code": "rate"}}, status=429)
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 3,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 6},
    }
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Höfn"}'}}
    reason = "tool_calls" if asked.get("tools") else "stop"
    said: Json = {"content": None, "tool_calls": [call]} if asked.get("tools") else {"content": "hello"}
    head = {"id": "chatcmpl-1", "created": 1, "model": asked["model"]}
    if not asked.get("stream"):
        choice = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": reason}
        return web.json_response({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    deltas: list[Json] = [{"role": "assistant"}]
    if asked.get("tools"):
        deltas.append({"tool_calls": [{"index": 0, **call, "function": {"name": "weather", "arguments": ""}}]})
        deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": text}}]} for text in ('{"city": ', '"Höfn"}')]
    else:
        deltas += [{"content": "hel"}, {"content": "lo"}]
    told: list[Json] = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    told.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    if asked.get("stream_options", {}).get("include_usage"):
        told.append({"choices": [], "usage": usage})
    for chunk in told:
        await response.write(f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', **chunk})}\n\n".encode())
    await response.write(b"data: [DONE]\n\n")
    return response


@pytest.fixture
async def openai_client(external_site: Any, start_provider: Any) -> Any:
    """OpenAI's client, the site, and a provider that speaks Anthropic's format."""
    server = await start_provider(claude)
    site = await external_site(server.url, providerType="Anthropic")
    url = f"http://127.0.0.1:{site.listener.port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="client-key", max_retries=0) as client:
        yield client, site, server


@pytest.fixture
async def anthropic_client(external_site: Any, start_provider: Any) -> Any:
    """Anthropic's client, the site, and a provider that speaks OpenAI's format."""
    server = await start_provider(gpt)
    site = await external_site(server.url)
    url = f"http://127.0.0.1:{site.listener.port}"
    async with anthropic.AsyncAnthropic(base_url=url, api_key="client-key", max_retries=0) as client:
        yield client, site, server


ASK: Any = [{"role": "user", "content": "hi"}]
OPENAI_TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": TOOL}}]
ANTHROPIC_TOOLS: Any = [{"name": "weather", "input_schema": TOOL}]


async def test_openais_client_is_answered_by_anthropics_format(openai_client: Any) -> None:
    client, site, server = openai_client
    told = await client.chat.completions.create(model="m", messages=ASK, temperature=0.5)
    assert (told.choices[0].message.content, told.choices[0].finish_reason) == ("hello", "stop")
    assert (told.usage.prompt_tokens, told.usage.completion_tokens) == (10, 3)
    assert told.usage.prompt_tokens_details.cached_tokens == 6
    assert server.paths == ["/v1/messages"]
    assert server.json == {"model": "m", "max_tokens": 4096, "messages": ASK, "temperature": 0.5}
    assert server.headers[0]["x-api-key"] == "sk-real"
    assert server.headers[0]["anthropic-version"]
    labels = {"path": "/v1/chat/completions", "backend_type": "external_provider"}
    assert site.sample("requests_total", status_code="200", **labels) == 1, "metrics name the client's path"
    assert site.sample("tokens_total", token_type="input", **labels) == 10


async def test_openais_client_streams_text_and_usage_from_anthropics_format(openai_client: Any) -> None:
    client, site, _ = openai_client
    stream = await client.chat.completions.create(
        model="m", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "hello"
    assert chunks[-1].usage.total_tokens == 13
    assert site.sample("tokens_total", token_type="cached") == 6


async def test_openais_client_streams_a_tool_call_and_returns_its_result(openai_client: Any) -> None:
    client, _, server = openai_client
    async with client.chat.completions.stream(model="m", messages=ASK, tools=OPENAI_TOOLS) as stream:
        said = (await stream.get_final_completion()).choices[0].message
    (call,) = said.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Höfn"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "windy"}
    answer = await client.chat.completions.create(model="m", messages=[*ASK, said, result])
    assert answer.choices[0].message.content == "hello"
    assert server.json["messages"][1:] == [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Höfn"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "windy"}]},
    ]  # fmt: skip


async def test_openais_client_understands_anthropics_errors_and_refused_fields(
    openai_client: Any, external_site: Any
) -> None:
    client, site, server = openai_client
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model="m", messages=ASK, n=2)
    assert (refused.value.code, refused.value.param) == ("untranslatable", "n")
    assert not server.paths
    assert site.sample("requests_total", error_type="request_protocol", status_code="400") == 1
    busy = await external_site(server.url, providerType="Anthropic", model="overloaded")
    url = f"http://127.0.0.1:{busy.listener.port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as other:
        with pytest.raises(openai.InternalServerError) as failed:
            await other.chat.completions.create(model="m", messages=ASK)
    assert failed.value.status_code == 503
    assert "Overloaded" in failed.value.message


async def test_anthropics_client_is_answered_by_openais_format(anthropic_client: Any) -> None:
    client, site, server = anthropic_client
    told = await client.messages.create(model="m", max_tokens=9, messages=ASK, system="be kind", stop_sequences=["x"])
    assert told.content[0].text == "hello"
    assert (told.stop_reason, told.usage.input_tokens, told.usage.cache_read_input_tokens) == ("end_turn", 4, 6)
    assert server.paths == ["/v1/chat/completions"]
    assert server.json == {
        "model": "m", "max_completion_tokens": 9, "stop": ["x"],
        "messages": [{"role": "system", "content": "be kind"}, *ASK],
    }  # fmt: skip
    assert server.headers[0]["authorization"] == "Bearer sk-real"
    assert site.sample("tokens_total", token_type="input", path="/v1/messages") == 10


async def test_anthropics_client_streams_text_and_usage_from_openais_format(anthropic_client: Any) -> None:
    client, site, _ = anthropic_client
    async with client.messages.stream(model="m", max_tokens=9, messages=ASK) as stream:
        text = "".join([part async for part in stream.text_stream])
        final = await stream.get_final_message()
    assert (text, final.stop_reason, final.usage.output_tokens) == ("hello", "end_turn", 3)
    assert site.sample("tokens_total", token_type="output") == 3


async def test_anthropics_client_streams_a_tool_call_and_returns_its_result(anthropic_client: Any) -> None:
    client, _, server = anthropic_client
    async with client.messages.stream(model="m", max_tokens=9, messages=ASK, tools=ANTHROPIC_TOOLS) as stream:
        said = await stream.get_final_message()
    (call,) = said.content
    assert (call.type, call.input, said.stop_reason) == ("tool_use", {"city": "Höfn"}, "tool_use")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "windy"}
    turns = [*ASK, {"role": "assistant", "content": said.content}, {"role": "user", "content": [result]}]
    await client.messages.create(model="m", max_tokens=9, messages=turns)
    assert server.json["messages"][1]["tool_calls"][0]["id"] == "call_1"
    assert server.json["messages"][2] == {"role": "tool", "tool_call_id": "call_1", "content": "windy"}


async def test_anthropics_client_understands_openais_errors(
    anthropic_client: Any, external_site: Any, start_provider: Any
) -> None:
    client, _, server = anthropic_client
    with pytest.raises(anthropic.BadRequestError, match="thinking"):
        await client.messages.create(
            model="m", max_tokens=2000, messages=ASK, thinking={"type": "enabled", "budget_tokens": 1024}
        )
    limited = await external_site(server.url, model="limited")
    url = f"http://127.0.0.1:{limited.listener.port}"
    async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as other:
        with pytest.raises(anthropic.RateLimitError, match="slow"):
            await other.messages.create(model="m", max_tokens=9, messages=ASK)


async def test_an_answer_that_breaks_off_or_is_too_large_is_an_error(external_site: Any, start_provider: Any) -> None:
    async def breaks(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json", "content-length": "100"})
        await response.prepare(request)
        await response.write(b'{"id":')
        assert request.transport is not None
        request.transport.abort()
        return response

    server = await start_provider(breaks)
    site = await external_site(server.url, providerType="Anthropic")
    assert (await site.post())[0] == 502
    server.answer = claude
    settings = RoutingSettings(translation=TranslationSettings(answer_bytes_max=10))
    site = await external_site(server.url, providerType="Anthropic", settings=settings)
    status, body = await site.post()
    assert status == 502
    assert "answer_bytes_max" in body["error"]["message"]


async def test_a_plain_answer_that_is_late_is_504_in_the_clients_format(
    external_site: Any, start_provider: Any
) -> None:
    released = asyncio.Event()

    async def begins(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json"})
        await response.prepare(request)
        await response.write(b'{"id":')
        await released.wait()
        return response

    site = await external_site((await start_provider(begins)).url)
    asked = {"model": "m", "max_tokens": 3, "messages": ASK}
    async with site.client.post("/v1/messages", json=asked, headers={"x-request-timeout": "0.3"}) as response:
        assert response.status == 504
        assert (await response.json())["type"] == "error"
    released.set()


async def test_a_local_engine_without_messages_is_asked_for_a_chat_completion(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    backend = await start_backend()
    settings = RoutingSettings(translation=TranslationSettings(engines=("vLLM",)))
    site = await start_site(*kit.objects(backend), settings=settings)
    url = f"http://127.0.0.1:{site.listener.port}"
    async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as client:
        told = await client.messages.create(model="m", max_tokens=9, messages=ASK, extra_body={"top_k": 3})
        assert [block.to_dict() for block in told.content] == [{"type": "text", "text": "hi"}]
        assert told.model == "served-m"
        async with client.messages.stream(model="m", max_tokens=9, messages=ASK) as stream:
            text = "".join([part async for part in stream.text_stream])
    assert [answer.path for answer in backend.requests] == ["/v1/chat/completions"] * 2
    assert backend.requests[0].json["top_k"] == 3
    assert text == "abc"
    assert site.sample("tokens_total", token_type="cached", path="/v1/messages", backend_type="model_server") == 4
    plain = await start_site(*kit.objects(backend))
    await plain.post("/v1/messages", max_tokens=3)
    assert backend.requests[-1].path == "/v1/messages", "an engine that speaks it gets it as it is"
