"""Streams: usage, event boundaries, departures, and an engine that dies half-way."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from hekla.routing.config import RoutingSettings, UpstreamSettings


async def test_usage_is_counted_and_hidden_from_a_client_that_did_not_ask(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    backend = await start_backend()
    site = await start_site(*kit.objects(backend))
    text = await site.stream(stream_options={"chunk_size": 7})
    assert backend.requests[0].json["stream_options"] == {"chunk_size": 7, "include_usage": True}
    assert b"usage" not in text
    assert text.endswith(b"data: [DONE]\n\n")
    assert text.count(b'"content"') == 3
    assert site.sample("tokens_total", token_type="input") == 7
    assert site.sample("tokens_total", token_type="output") == 3
    assert site.sample("tokens_total", token_type="cached") == 2


async def test_usage_reaches_a_client_that_asked(start_site: Any, start_backend: Any, kit: Any) -> None:
    backend = await start_backend()
    site = await start_site(*kit.objects(backend))
    text = await site.stream(stream_options={"include_usage": True})
    assert b'"prompt_tokens":7' in text
    assert site.sample("tokens_total", token_type="output") == 3


async def test_a_usage_event_split_at_any_byte_is_still_hidden(start_site: Any, start_backend: Any, kit: Any) -> None:
    word = kit.event({"choices": [{"delta": {"content": 'say "usage" and \\"choices\\":[]'}}]})
    usage = kit.event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
    whole = word + usage + b"data: [DONE]\n\n"

    async def one_byte_at_a_time(answer: Any) -> None:
        await answer.begin(content_type="text/event-stream")
        for i in range(len(whole)):
            await answer.write(whole[i : i + 1])
        await answer.end()

    site = await start_site(*kit.objects(await start_backend(one_byte_at_a_time)))
    assert await site.stream() == word + b"data: [DONE]\n\n"
    assert site.sample("tokens_total", token_type="output") == 2


async def test_a_client_that_leaves_a_stream_aborts_the_engines_work(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def endless(answer: Any) -> None:
        await answer.begin(content_type="text/event-stream")
        await answer.write(kit.event({"choices": [{"delta": {"content": "x"}}]}))
        await answer.wait_left()

    backend = await start_backend(endless)
    site = await start_site(*kit.objects(backend))
    response = await site.client.post("/v1/chat/completions", json={"model": "m", "messages": [], "stream": True})
    await response.content.readany()
    assert site.ingress.loads.load("default/e0").own[:3] == (1, 0, 1)
    response.close()
    async with asyncio.timeout(10):
        await backend.requests[0].left.wait()
    await kit.until(lambda: site.sample("requests_total", status_code="499", error_type="client_closed") == 1, "499")
    assert not any(site.ingress.loads.load("default/e0").own)
    assert site.sample("active_requests") == 0
    assert site.sample("active_upstream_requests") == 0


async def test_a_client_that_leaves_before_the_headers_aborts_too(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def silent(answer: Any) -> None:
        await answer.wait_left()

    backend = await start_backend(silent)
    site = await start_site(*kit.objects(backend))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await site.post()
    await kit.until(lambda: bool(backend.requests) and backend.requests[0].left.is_set(), "the engine was left")
    await kit.until(lambda: site.ingress.gateway.in_flight == 0, "nothing in flight")


async def test_an_engine_that_dies_mid_stream_ends_it_with_an_error_event(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    word = kit.event({"choices": [{"delta": {"content": "x"}}]})

    async def dying(answer: Any) -> None:
        await answer.begin(content_type="text/event-stream")
        await answer.write(word + b'data: {"choi')
        # Returning without an end makes the server break the connection.

    backend = await start_backend(dying)
    site = await start_site(*kit.objects(backend))
    text = await site.stream()
    first, error, done = text.removesuffix(b"\n\n").split(b"\n\n")
    assert first + b"\n\n" == word
    assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "engine_lost"
    assert done == b"data: [DONE]"
    assert len(backend.requests) == 1, "bytes had reached the client: no second engine may be asked"
    assert site.sample("lost_streams_total") == 1
    assert site.sample("requests_total", error_type="proxy", status_code="200") == 1


async def test_a_plain_answer_cut_short_is_asked_for_elsewhere(start_site: Any, start_backend: Any, kit: Any) -> None:
    died = False

    async def dies_once(answer: Any) -> None:
        nonlocal died
        if died:
            await kit.chat(answer)
            return
        died = True
        await answer.begin(content_type="application/json", content_length="1000")
        await answer.write(b'{"choices":')

    backends = await start_backend(dies_once), await start_backend(dies_once)
    site = await start_site(*kit.objects(*backends))
    status, answer = await site.post()
    assert (status, answer["choices"]) == (200, [{"message": {"content": "hi"}}])
    assert sum(len(backend.requests) for backend in backends) == 2
    assert site.sample("lost_streams_total") == 0


async def test_a_plain_answer_larger_than_what_is_held_is_cut_short_for_the_client_too(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def dying(answer: Any) -> None:
        await answer.begin(content_type="application/json", content_length="1000")
        await answer.write(b'{"choices":' + b" " * 100)

    settings = RoutingSettings(upstream=UpstreamSettings(answer_held_bytes_max=64))
    site = await start_site(*kit.objects(await start_backend(dying)), settings=settings)
    with pytest.raises(aiohttp.ClientPayloadError):
        await site.post()
    assert site.sample("lost_streams_total") == 1


async def test_an_answer_of_many_megabytes_arrives_whole(start_site: Any, start_backend: Any, kit: Any) -> None:
    blob = json.dumps({"data": ["y" * 1000] * 8000, "usage": {"prompt_tokens": 5}}).encode()

    async def large(answer: Any) -> None:
        await answer.reply(200, blob)

    site = await start_site(*kit.objects(await start_backend(large)))
    async with site.client.post("/v1/embeddings", json={"model": "m", "input": "x"}) as response:
        assert await response.read() == blob
        assert response.headers["content-length"] == str(len(blob))
    assert site.sample("tokens_total", token_type="input") == 5


async def test_a_body_above_the_limit_is_a_413_that_names_it(start_site: Any, start_backend: Any, kit: Any) -> None:
    from hekla.routing.config import LimitSettings, RoutingSettings

    backend = await start_backend()
    settings = RoutingSettings(limits=LimitSettings(body_bytes_max=1000))
    site = await start_site(*kit.objects(backend), settings=settings)

    async def chunked() -> Any:
        for _ in range(3):
            yield b"x" * 400

    for data in (b"x" * 1001, chunked()):
        async with site.client.post("/v1/completions", data=data) as response:
            assert response.status == 413
            assert "1000 bytes" in (await response.json())["error"]["message"]
    assert backend.requests == []


async def test_a_body_of_many_megabytes_reaches_the_engine(start_site: Any, start_backend: Any, kit: Any) -> None:
    backend = await start_backend()
    site = await start_site(*kit.objects(backend))
    prompt = "é" * 3_000_000
    status, _ = await site.post("/v1/completions", prompt=prompt)
    assert status == 200
    assert backend.requests[0].json["prompt"] == prompt


async def test_headers_cross_without_credentials_and_connection_details(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def with_headers(answer: Any) -> None:
        await answer.reply(200, {}, x_engine="1", server="vllm", keep_alive="x", x_hop="2", connection="x-hop")

    backend = await start_backend(with_headers)
    site = await start_site(*kit.objects(backend))
    sent = {
        "Authorization": "Bearer sk", "X-Api-Key": "k", "Cookie": "a=b", "X-Tenant": "t", "X-Private": "p",
        "Connection": "keep-alive, X-Private", "TE": "trailers", "Accept-Encoding": "gzip", "X-Request-Id": "abc-1",
    }  # fmt: skip
    async with site.client.post("/v1/completions", json={"model": "m", "prompt": ""}, headers=sent) as response:
        await response.read()
        assert response.headers["x-engine"] == "1"
        assert response.headers["x-request-id"] == "abc-1"
        assert not {"server", "keep-alive", "x-hop"} & {name.lower() for name in response.headers}
    got = backend.requests[0].headers
    assert got["x-tenant"] == "t"
    assert got["x-request-id"] == "abc-1"
    dropped = {"authorization", "x-api-key", "cookie", "x-private", "te", "accept-encoding"}
    assert not dropped & got.keys()


async def test_a_request_id_that_is_not_plain_is_replaced(start_site: Any) -> None:
    site = await start_site()
    for value in ("a b", "x" * 129, 'q"'):
        async with site.client.post("/v1/completions", data=b"", headers={"X-Request-Id": value}) as response:
            assert response.headers["x-request-id"] not in ("", value)


async def test_connections_to_engines_are_kept(start_site: Any, start_backend: Any, kit: Any) -> None:
    backend = await start_backend()
    site = await start_site(*kit.objects(backend))
    for _ in range(20):
        await site.post()
        await site.stream()
    assert len(backend.requests) == 40
    assert len(backend.connections) == 1


async def test_draining_waits_for_streams_in_flight(start_site: Any, start_backend: Any, kit: Any) -> None:
    release = asyncio.Event()

    async def held(answer: Any) -> None:
        await answer.begin(content_type="text/event-stream")
        await answer.write(kit.event({"choices": [1]}))
        await release.wait()
        await answer.end(b"data: [DONE]\n\n")

    site = await start_site(*kit.objects(await start_backend(held)))
    async with asyncio.TaskGroup() as group:
        stream = group.create_task(site.stream())
        await kit.until(lambda: site.ingress.loads.load("default/e0").streaming == 1, "streaming")
        assert not await site.ingress.drain(0.05)
        drain = group.create_task(site.ingress.drain(10))
        release.set()
    assert drain.result()
    assert stream.result().endswith(b"[DONE]\n\n")


async def test_tokens_of_a_stream_its_client_left_are_counted_as_far_as_seen(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def endless(answer: Any) -> None:
        await answer.begin(content_type="text/event-stream")
        for _ in range(5):
            await answer.write(kit.event({"choices": [{"delta": {"content": "x"}}]}))
        await answer.wait_left()

    site = await start_site(*kit.objects(await start_backend(endless)))
    body = {"model": "m", "prompt": [1, 2, 3], "stream": True}
    response = await site.client.post("/v1/completions", json=body)
    got = b""
    while got.count(b"\n\n") < 5:
        got += await response.content.readany()
    response.close()
    await kit.until(lambda: site.sample("requests_total", error_type="client_closed") == 1, "counted")
    assert site.sample("tokens_total", token_type="input") == 3
    assert site.sample("tokens_total", token_type="output") == 5


async def test_a_send_that_fails_is_the_clients_leaving_and_not_the_engines_loss(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    # ASGI lets a server raise OSError from `send` on a closed connection; uvicorn returns silently instead.
    site = await start_site(*kit.objects(await start_backend()))
    body = json.dumps({"model": "m", "prompt": "x", "stream": True}).encode()
    messages = [{"type": "http.request", "body": body}]
    never = asyncio.Event()

    async def receive() -> Any:
        if not messages:
            await never.wait()
        return messages.pop()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise BrokenPipeError

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": [], "query_string": b""}
    await site.ingress.app(scope, receive, send)
    assert site.sample("requests_total", error_type="client_closed", status_code="499") == 1
    assert site.sample("lost_streams_total") == 0
    assert site.ingress.loads.own() == {}


async def test_bytes_of_header_values_reach_the_engine_as_they_came(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    backend = await start_backend()
    site = await start_site(*kit.objects(backend))
    reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
    body = b'{"model":"m","prompt":"x"}'
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nx-name: J\xc3\xb6rg\r\ncontent-length: %d\r\n\r\n" % len(body)
    )
    writer.write(body)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert dict(backend.requests[0].scope["headers"])[b"x-name"] == b"J\xc3\xb6rg"
