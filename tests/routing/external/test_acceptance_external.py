"""Rows R28 to R31 of the acceptance table, and what else an external provider is promised.

Where hekla means to differ from the peer, the test says why.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from hekla.routing.config import RoutingSettings
from hekla.routing.external.settings import ExternalSettings
from hekla.routing.traffic.breaker import State
from hekla.routing.traffic.settings import EjectionSettings, RetryBudgetSettings, TimeoutSettings, TrafficSettings

CHAT = "/v1/chat/completions"


async def test_a_request_goes_out_byte_for_byte_with_the_providers_credential(
    external_site: Any, start_provider: Any
) -> None:
    server = await start_provider()
    site = await external_site(server.url, headers={"OpenAI-Project": "p1"})
    body = b'{ "model" : "m",  "messages": [], "unknown": 1.50, "emoji": "\xf0\x9f\x8c\x8b" }'
    async with site.client.post(CHAT, data=body, headers={"content-type": "application/json"}) as response:
        assert response.status == 200
        assert (await response.json())["model"] == "gpt"
    assert server.bodies == [body]
    assert server.paths == [CHAT]
    assert server.headers[0]["authorization"] == "Bearer sk-real"
    assert server.headers[0]["openai-project"] == "p1"
    labels = {"backend_type": "external_provider", "backend_name": "default/p", "upstream_model": "m"}
    assert site.sample("requests_total", status_code="200", **labels) == 1
    assert site.sample("tokens_total", token_type="input", **labels) == 5
    assert site.sample("tokens_total", token_type="output", **labels) == 2
    assert site.sample("active_upstream_requests", **labels) == 0


async def test_only_allowed_headers_leave_the_cluster(external_site: Any, start_provider: Any) -> None:
    server = await start_provider()
    site = await external_site(server.url)
    passed = {
        "accept": "application/json", "traceparent": "t", "tracestate": "s", "baggage": "b", "x-b3-traceid": "x",
        "anthropic-beta": "tools", "x-request-id": "r-1",
    }  # fmt: skip
    kept_back = {
        "authorization": "Bearer client", "x-api-key": "client", "cookie": "a=b", "x-forwarded-for": "1.2.3.4",
        "openai-organization": "mine", "user-agent": "me", "proxy-authorization": "p",
    }  # fmt: skip
    query = "?beta=true&api_key=client"
    async with site.client.post(
        CHAT + query, json={"model": "m", "messages": []}, headers=passed | kept_back
    ) as answer:
        assert answer.status == 200
    (sent,) = server.headers
    assert {name: sent[name] for name in passed} == passed
    assert not [value for value in sent.values() if "client" in value or "mine" in value]
    assert not sent.keys() & (kept_back.keys() - {"authorization"})
    assert server.paths == [CHAT + "?beta=true"]


async def test_the_model_is_replaced_where_the_provider_names_one(external_site: Any, start_provider: Any) -> None:
    server = await start_provider()
    site = await external_site(server.url + "/v1", model="gpt-x")
    await site.post(temperature=0.5)
    assert server.json == {"model": "gpt-x", "messages": [], "temperature": 0.5}
    assert server.paths == [CHAT], "a base URL that ends in /v1 is not doubled"
    assert site.sample("requests_total", upstream_model="gpt-x", status_code="200") == 1


@pytest.mark.parametrize("missing", ["secret", "label", "key", "empty"])
async def test_r28_a_provider_without_a_credential_is_503_provider_config(
    external_site: Any, start_provider: Any, providers: Any, kit: Any, missing: str
) -> None:
    server = await start_provider()
    site = await external_site(server.url)
    kept = providers.secret(**{"key": {"other": "x"}, "empty": {"api-key": "\n"}}.get(missing, {}))
    if missing == "label":
        kept["metadata"]["labels"] = {}
    if missing == "secret":
        site.source.remove(kept)
    else:
        site.source.put(kept)

    def is_ready() -> bool:
        return bool(site.ingress.providers.get(("default", "p")).ready.holds)

    await kit.until(lambda: not is_ready(), "the change is known")
    async with site.client.post(CHAT, json={"model": "m", "messages": []}) as response:
        assert response.status == 503
        assert response.headers["retry-after"] == "1"
        assert (await response.json())["error"]["code"] == "provider_not_ready"
    assert site.sample("requests_total", error_type="provider_config", status_code="503") == 1
    assert not server.paths
    site.source.put(providers.secret())
    await kit.until(is_ready, "the credential is back")
    assert (await site.post())[0] == 200, "no restart is needed"


async def test_a_provider_that_does_not_exist_is_404(external_site: Any, start_provider: Any, providers: Any) -> None:
    server = await start_provider()
    site = await external_site(server.url, rules=providers.rule("gone"))
    status, body = await site.post()
    assert (status, body["error"]["code"]) == (404, "provider_not_found")
    assert site.sample("requests_total", error_type="provider_config", status_code="404") == 1


@pytest.mark.parametrize(
    ("wire", "path"),
    [
        ("OpenAI", "/v1/embeddings"),
        ("OpenAI", "/tokenize"),
        ("Anthropic", "/v1/completions"),
        ("Anthropic", "/v1/responses"),
    ],
)
async def test_r29_a_path_the_provider_does_not_speak_is_400_request_protocol(
    external_site: Any, start_provider: Any, wire: str, path: str
) -> None:
    server = await start_provider()
    site = await external_site(server.url, providerType=wire)
    status, body = await site.post(path)
    assert (status, body["error"]["code"]) == (400, "request_protocol")
    assert site.sample("requests_total", error_type="request_protocol") == 1
    assert not server.paths


@pytest.mark.parametrize("status", [400, 404, 401, 403, 429, 500, 503, 529])
async def test_r30_an_error_of_the_provider_reaches_the_client_unchanged(
    external_site: Any, start_provider: Any, providers: Any, status: int
) -> None:
    """As the peer does; but its account's headers are the operator's own business."""
    told = {"error": {"message": "no", "type": "theirs"}}
    server = await start_provider(providers.replies(told, status, retry_after="7", openai_organization="org"))
    site = await external_site(server.url)
    async with site.client.post(CHAT, json={"model": "m", "messages": []}) as response:
        assert (response.status, await response.json()) == (status, told)
        assert response.headers["retry-after"] == "7"
        assert "openai-organization" not in response.headers
    assert len(server.paths) == 1, "it may have been billed: not tried again"
    assert site.sample("requests_total", status_code=str(status), backend_type="external_provider") == 1


async def test_r31_a_redirect_is_not_followed(external_site: Any, start_provider: Any) -> None:
    """Nor is it passed on, as the peer does: the client's SDK would follow it with its own key and the prompt."""
    elsewhere = await start_provider()

    async def redirects(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"location": elsewhere.url + CHAT})

    server = await start_provider(redirects)
    site = await external_site(server.url)
    async with site.client.post(CHAT, json={"model": "m", "messages": []}, allow_redirects=False) as response:
        assert response.status == 502
        assert "location" not in response.headers
        assert (await response.json())["error"]["code"] == "upstream_redirect"
    assert not elsewhere.paths
    assert site.sample("requests_total", error_type="upstream_transport", status_code="502") == 1


async def test_a_connection_that_fails_is_tried_again_and_then_502(external_site: Any, start_provider: Any) -> None:
    server = await start_provider()
    await server.stop()
    settings = RoutingSettings(external=ExternalSettings(connect_interval_s=0.001))
    site = await external_site(server.url, settings=settings)
    status, body = await site.post()
    assert (status, body["error"]["code"]) == (502, "upstream_failed")
    assert site.sample("requests_total", error_type="upstream_transport") == 1


async def test_headers_that_do_not_come_are_504(external_site: Any, start_provider: Any) -> None:
    released = asyncio.Event()

    async def hangs(_request: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    server = await start_provider(hangs)
    site = await external_site(server.url, settings=RoutingSettings(external=ExternalSettings(headers_timeout_s=0.05)))
    status, body = await site.post()
    released.set()
    assert (status, body["error"]["code"]) == (504, "upstream_failed")


async def test_a_certificate_is_verified_unless_told_otherwise(external_site: Any, start_provider: Any) -> None:
    server = await start_provider()
    site = await external_site(server.url, insecureSkipVerify=False)
    status, body = await site.post()
    assert status == 502
    assert "certificate" in body["error"]["message"].lower()
    assert not server.paths


async def test_a_stream_passes_as_it_comes_and_its_usage_counts(
    external_site: Any, start_provider: Any, providers: Any
) -> None:
    usage = {"prompt_tokens": 4, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
    deltas = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in "ab"]
    told = providers.sse(*deltas, {"choices": [], "usage": usage}, "[DONE]")
    server = await start_provider(providers.streams(told[:30], told[30:]))
    site = await external_site(server.url)
    assert await site.stream() == told
    assert site.sample("tokens_total", token_type="input") == 4
    assert site.sample("tokens_total", token_type="cached") == 1
    server.answer = providers.streams(providers.sse(*deltas, "[DONE]"))
    await site.stream()
    assert site.sample("tokens_total", token_type="output") == 2 + 3, "without usage each event counts as a token"
    assert b"stream_options" not in server.bodies[-1], "its bytes stay the client's"


async def test_a_stream_that_breaks_ends_with_an_error_event(
    external_site: Any, start_provider: Any, providers: Any
) -> None:
    async def breaks(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(providers.sse({"choices": [{"delta": {"content": "a"}}]}))
        assert request.transport is not None
        request.transport.abort()
        return response

    site = await external_site((await start_provider(breaks)).url)
    text = await site.stream()
    assert b"upstream_transport" in text
    assert text.endswith(b"data: [DONE]\n\n")
    assert site.sample("requests_total", error_type="upstream_transport", status_code="200") == 1


async def test_a_silent_stream_is_ended(external_site: Any, start_provider: Any, providers: Any) -> None:
    released = asyncio.Event()

    async def stalls(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(providers.sse({"choices": [{"delta": {"content": "a"}}]}))
        await released.wait()
        return response

    settings = RoutingSettings(traffic=TrafficSettings(timeouts=TimeoutSettings(idle_s=0.1)))
    site = await external_site((await start_provider(stalls)).url, settings=settings)
    assert b"sent nothing for" in await site.stream()
    released.set()


async def test_a_client_that_leaves_ends_the_providers_work(
    external_site: Any, start_provider: Any, providers: Any, kit: Any
) -> None:
    left = asyncio.Event()

    async def goes_on(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(providers.sse({"choices": [{"delta": {"content": "a"}}]}))
                await asyncio.sleep(0.005)
        finally:
            left.set()

    site = await external_site((await start_provider(goes_on)).url)
    async with site.client.post(CHAT, json={"model": "m", "messages": [], "stream": True}) as response:
        await response.content.readany()
    await asyncio.wait_for(left.wait(), 10)
    await kit.until(lambda: site.sample("requests_total", error_type="client_closed") == 1, "it is accounted")
    assert site.sample("active_upstream_requests") == 0


async def test_a_local_target_fails_over_to_a_provider_and_a_provider_to_a_local_one(
    external_site: Any, start_provider: Any, start_backend: Any, providers: Any, kit: Any
) -> None:
    provider, backend = await start_provider(), await start_backend()
    to_provider = [{"targetModels": [{"modelServerName": "s"}], "failover": [{"externalModelProviderName": "p"}]}]
    site = await external_site(provider.url, kit.model_server(), rules=to_provider, model="gpt")
    assert (await site.post())[0] == 200
    assert provider.json["model"] == "gpt"
    assert site.sample("failovers_total", target="p", reason="not_ready") == 1
    assert site.sample("requests_total", backend_type="external_provider", upstream_model="gpt") == 1

    provider.answer = providers.replies({"error": {}}, 503)
    objects = [kit.model_server(), kit.engine("e0", backend.url)]
    site = await external_site(
        provider.url, *objects, rules=providers.rule(failover=[{"modelServerName": "s"}]), model="gpt"
    )
    status, body = await site.post()
    assert (status, body["model"]) == (200, "served-m")
    assert site.sample("failovers_total", target="s", reason="upstream_failed") == 1
    assert site.sample("requests_total", backend_type="model_server", upstream_model="served-m") == 1


async def test_a_provider_that_fails_is_spared_only_while_there_is_another_target(
    external_site: Any, start_provider: Any, start_backend: Any, providers: Any, kit: Any
) -> None:
    failing = await start_provider(providers.replies({"error": {}}, 500))
    backend = await start_backend()
    settings = RoutingSettings(traffic=TrafficSettings(ejection=EjectionSettings(consecutive_failures=3)))
    objects = [kit.model_server(), kit.engine("e0", backend.url)]
    both = providers.rule(failover=[{"modelServerName": "s"}])
    site = await external_site(failing.url, *objects, rules=both, settings=settings)
    for _ in range(6):
        assert (await site.post())[0] == 200
    assert len(failing.paths) == 3
    assert site.ingress.external.health.state("default/p") is State.OPEN

    alone = await external_site(failing.url, settings=settings)
    for _ in range(6):
        assert (await alone.post())[0] == 500
    assert len(failing.paths) == 3 + 6, "with nobody else to ask, it is asked"


async def test_a_retry_budget_that_is_spent_ends_the_tries(external_site: Any, start_provider: Any) -> None:
    server = await start_provider()
    await server.stop()
    settings = RoutingSettings(
        external=ExternalSettings(connect_attempts=50, connect_interval_s=0.0),
        traffic=TrafficSettings(retries=RetryBudgetSettings(burst=2, ratio=0, floor_per_s=0)),
    )
    site = await external_site(server.url, settings=settings)
    assert (await site.post())[0] == 502


async def test_anthropics_format_passes_natively_with_its_own_credential_and_usage(
    external_site: Any, start_provider: Any, providers: Any
) -> None:
    usage = {"input_tokens": 3, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2, "output_tokens": 1}
    start = {"type": "message_start", "message": {"id": "x", "usage": usage}}
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}
    told = providers.sse(start, delta, {"type": "message_stop"})
    server = await start_provider(providers.streams(told))
    site = await external_site(server.url, providerType="Anthropic")
    assert await site.stream("/v1/messages", max_tokens=5) == told
    (sent,) = server.headers
    assert sent["x-api-key"] == "sk-real"
    assert "authorization" not in sent
    assert sent["anthropic-version"] == "2023-06-01"
    assert site.sample("tokens_total", token_type="input") == 10, "what was read and written to its cache is input too"
    assert site.sample("tokens_total", token_type="cached") == 5
    assert site.sample("tokens_total", token_type="output") == 9


async def test_a_key_never_appears_in_a_log_an_answer_or_a_repr(
    external_site: Any, start_provider: Any, caplog: Any
) -> None:
    server = await start_provider()
    site = await external_site(server.url)
    found = site.ingress.providers.get(("default", "p"))
    await server.stop()
    _, body = await site.post()
    assert "sk-real" not in repr(found) + json.dumps(body) + caplog.text
