"""Deadlines: headers, silence inside an answer, and the whole of a request; with and without separate prefill."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hekla.routing.config import RoutingSettings
from hekla.routing.continuation.settings import ContinuationSettings
from hekla.routing.refusal import Refusal
from hekla.routing.traffic.deadlines import asked_timeout_s, deadlines_of
from hekla.routing.traffic.settings import TimeoutSettings

UNCONTINUED = RoutingSettings(continuation=ContinuationSettings(attempts_max=0))


async def silent(answer: Any) -> None:
    await answer.wait_left()


async def one_event_then_silence(answer: Any) -> None:
    await answer.begin(content_type="text/event-stream")
    await answer.write(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
    await answer.wait_left()


async def test_a_stream_that_falls_silent_is_given_up(start_site: Any, start_backend: Any, kit: Any) -> None:
    backend = await start_backend(one_event_then_silence)
    site = await start_site(*kit.objects(backend, trafficPolicy={"idleTimeout": "200ms"}), settings=UNCONTINUED)
    text = await site.stream()
    assert b'"content":"a"' in text
    assert b"engine_lost" in text
    assert site.sample("lost_streams_total") == 1
    await kit.until(lambda: backend.requests[0].left.is_set(), "its work is aborted")


async def test_an_engine_silent_after_its_headers_is_replaced_by_another(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def headers_only(answer: Any) -> None:
        await answer.begin(content_type="text/event-stream")
        await answer.wait_left()

    backends = [await start_backend(headers_only), await start_backend()]
    site = await start_site(*kit.objects(*backends, trafficPolicy={"idleTimeout": "1s"}))
    for _ in range(50):
        assert (await site.stream()).endswith(b"data: [DONE]\n\n")
        if backends[0].requests:
            break
    assert len(backends[0].requests) == 1


async def test_a_client_that_reads_slowly_is_not_the_engines_silence(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def much(answer: Any) -> None:
        await answer.begin(content_type="text/event-stream")
        for _ in range(60):
            await answer.write(b"data: " + b"x" * 200_000 + b"\n\n")
        await answer.end(b"data: [DONE]\n\n")

    site = await start_site(*kit.objects(await start_backend(much), trafficPolicy={"idleTimeout": "100ms"}))
    body = {"model": "m", "messages": [], "stream": True}
    async with site.client.post("/v1/chat/completions", json=body) as response:
        received = 0
        await kit.until(lambda: site.sample("active_requests") == 1, "it is under way")
        clock, began_s = site.ingress._clock, site.ingress._clock.monotonic()
        await kit.until(lambda: clock.monotonic() > began_s + 0.6, "six times as long as an engine may be silent")
        async for chunk in response.content.iter_any():
            received += len(chunk)
    assert received == 60 * 200_008 + 14
    assert site.sample("lost_streams_total") == 0


async def test_a_request_ends_at_its_total_timeout(start_site: Any, start_backend: Any, kit: Any) -> None:
    backend = await start_backend(silent)
    site = await start_site(*kit.objects(backend, trafficPolicy={"totalTimeout": "150ms"}))
    status, body = await site.post()
    assert (status, body["error"]["code"]) == (504, "deadline_exceeded")
    assert "0.15 s" in body["error"]["message"]
    assert site.sample("deadlines_exceeded_total", model="m") == 1
    await kit.until(lambda: backend.requests[0].left.is_set(), "its work is aborted")
    assert site.ingress.loads.load("default/e0").requests == 0


async def test_a_stream_that_is_under_way_ends_with_an_error_event(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def endless(answer: Any) -> None:
        await answer.begin(content_type="text/event-stream")
        while not answer.left.is_set():
            await answer.write(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
            await asyncio.sleep(0.01)

    backend = await start_backend(endless)
    site = await start_site(*kit.objects(backend, trafficPolicy={"totalTimeout": "2s"}))
    text = await site.stream()
    assert text.count(b'"content":"a"') > 1
    assert b'"code":"deadline_exceeded"' in text
    backend.requests[0].left.set()


@pytest.mark.parametrize(("asked", "expected"), [("0.15", 504), ("150ms", 504), ("3600", 200)])
async def test_a_clients_own_limit_lowers_the_total(
    start_site: Any, start_backend: Any, kit: Any, asked: str, expected: int
) -> None:
    backend = await start_backend(silent if expected == 504 else kit.chat)
    site = await start_site(*kit.objects(backend))
    body = {"model": "m", "messages": []}
    headers = {"x-request-timeout": asked}
    async with site.client.post("/v1/chat/completions", json=body, headers=headers) as response:
        assert response.status == expected


async def test_a_clients_own_limit_never_raises_the_total(start_site: Any, start_backend: Any, kit: Any) -> None:
    backend = await start_backend(silent)
    site = await start_site(*kit.objects(backend, trafficPolicy={"totalTimeout": "100ms"}))
    body = {"model": "m", "messages": []}
    headers = {"x-request-timeout": "3600"}
    async with site.client.post("/v1/chat/completions", json=body, headers=headers) as response:
        assert response.status == 504


@pytest.mark.parametrize("value", [b"soon", b"0", b"-1", b"", b"nan", b"1e999", b"\xff", "١".encode()])
def test_a_limit_that_is_no_time_is_a_clear_400(value: bytes) -> None:
    with pytest.raises(Refusal) as error:
        asked_timeout_s(value)
    assert (error.value.status, error.value.code) == (400, "invalid_timeout")
    assert "500ms" in error.value.message


def test_limits_of_zero_are_none() -> None:
    limits = deadlines_of(None, TimeoutSettings(idle_s=0, total_s=0), None, 5.0)
    assert limits.idle_s == limits.end_s == float("inf")
    assert deadlines_of(None, TimeoutSettings(total_s=0), 3.0, 5.0).end_s == 8.0
    assert deadlines_of(None, TimeoutSettings(total_s=2), 3.0, 5.0).end_s == 7.0


def pairs(kit: Any, *urls: tuple[str, str], **policy: Any) -> list[Any]:
    """A route to prefill/decode groups, each of a prefill and a decode engine."""
    group = {"groupKey": "g", "prefillLabels": {"role": "p"}, "decodeLabels": {"role": "d"}, "localPrefillTokensMax": 0}
    selector = {"matchLabels": {"app": "m"}, "pdGroup": group}
    engines = [
        kit.engine(f"{role}{i}", url, app="m", g=str(i), role=role)
        for i, both in enumerate(urls)
        for role, url in zip("pd", both, strict=True)
    ]
    return [kit.model_route(), kit.model_server(workloadSelector=selector, trafficPolicy=policy), *engines]


async def test_r23_a_prefill_engine_that_never_answers_is_given_up_too(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    """The peer's timeout holds without separate prefill only (its defect 1)."""
    stuck, good, decode = await start_backend(silent), await start_backend(), await start_backend()
    objects = pairs(kit, (stuck.url, decode.url), (good.url, decode.url), timeout="2s")
    site = await start_site(*objects)
    for _ in range(50):
        assert (await site.post())[0] == 200
        if stuck.requests:
            break
    assert len(stuck.requests) == 1


async def test_r23_a_decode_engine_that_never_answers_is_given_up_too(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    prefill, stuck, good = await start_backend(), await start_backend(silent), await start_backend()
    objects = pairs(kit, (prefill.url, stuck.url), (prefill.url, good.url), timeout="2s")
    site = await start_site(*objects)
    for _ in range(50):
        assert (await site.post())[0] == 200
        if stuck.requests:
            break
    assert len(stuck.requests) == 1
