"""Which failures are tried again, on which engine, and what the client sees in the end (R19, R20, R22, R23)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from hekla.routing.admission.settings import AdmissionSettings
from hekla.routing.config import LimitSettings, RoutingSettings, SchedulingSettings, UpstreamSettings
from hekla.routing.load import Counts


def failing(status: int, **body: Any) -> Any:
    async def behave(answer: Any) -> None:
        await answer.reply(status, body or {"error": {"message": "engine says no"}}, retry_after="7")

    return behave


async def three(start_backend: Any, *behaviours: Any) -> list[Any]:
    return [await start_backend(behave) for behave in behaviours]


class FirstTwoFail:
    """Whichever engines are asked: the first two requests get a 500."""

    def __init__(self, answer: Any) -> None:
        self.asked: list[bytes] = []
        self._answer = answer

    async def __call__(self, answer: Any) -> None:
        self.asked.append(answer.body)
        if len(self.asked) <= 2:
            await answer.reply(500, {})
        else:
            await self._answer(answer)


async def test_two_failing_engines_are_invisible_and_the_body_is_the_same_on_every_try(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    behave = FirstTwoFail(kit.chat)
    backends = await three(start_backend, behave, behave, behave)
    site = await start_site(*kit.objects(*backends))
    status, _ = await site.post(temperature=0.5)
    assert status == 200
    assert [len(backend.requests) for backend in backends] == [1, 1, 1]
    assert len(behave.asked) == 3
    assert len(set(behave.asked)) == 1
    assert site.sample("retries_total", reason="500") == 2


async def test_when_every_try_fails_the_client_gets_503_and_the_reason(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    backends = await three(start_backend, *[failing(500)] * 5)
    site = await start_site(*kit.objects(*backends, trafficPolicy={"retry": {"attempts": 4, "retryInterval": "1ms"}}))
    status, body = await site.post()
    assert status == 503
    assert body["error"]["message"].startswith("request to all pods failed after 5 tries")
    assert "engine says no" in body["error"]["message"]
    assert [len(backend.requests) for backend in backends] == [1] * 5


async def test_a_4xx_is_the_engines_own_and_is_never_tried_again(start_site: Any, start_backend: Any, kit: Any) -> None:
    # The reference retries every non-2xx on five pods and masks it as 503 (its defect 2).
    for code in (400, 404, 413, 422, 501):
        backends = await three(start_backend, *[failing(code, detail=["as", "is"])] * 2)
        site = await start_site(*kit.objects(*backends))
        status, body = await site.post()
        assert (status, body) == (code, {"detail": ["as", "is"]})
        assert sum(len(backend.requests) for backend in backends) == 1


async def test_a_429_goes_to_another_engine_and_to_the_client_when_all_say_so(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    backends = await three(start_backend, failing(429, busy=1), failing(429, busy=1))
    site = await start_site(*kit.objects(*backends))
    async with site.client.post("/v1/completions", json={"model": "m", "prompt": "x"}) as response:
        assert response.status == 429
        assert response.headers["retry-after"] == "7"
        assert await response.json() == {"busy": 1}
    assert [len(backend.requests) for backend in backends] == [1, 1]
    backends[0].behave = backends[1].behave = kit.chat
    assert (await site.post())[0] == 200


async def test_a_refused_connection_is_tried_elsewhere_and_the_engine_avoided_for_a_while(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    alive, dead = await start_backend(), await start_backend()
    engines = [kit.engine("alive", alive.url), kit.engine("dead", dead.url)]
    await dead.stop()
    settings = RoutingSettings(upstream=UpstreamSettings(suspect_s=3600))
    site = await start_site(kit.model_route(), kit.model_server(), *engines, settings=settings)
    for _ in range(20):
        assert (await site.post())[0] == 200
    assert site.sample("retries_total", reason="unreached") == 1


async def test_a_single_engine_that_broke_the_connection_is_asked_again(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    asked: list[int] = []

    async def breaks_once(answer: Any) -> None:
        asked.append(1)
        if len(asked) == 1:
            await answer.begin(content_type="text/event-stream")
            return  # no end, no byte of the body: the connection is broken
        await kit.chat(answer)

    site = await start_site(*kit.objects(await start_backend(breaks_once)))
    text = await site.stream()
    assert text.endswith(b"data: [DONE]\n\n")
    assert len(asked) == 2


async def test_late_headers_fail_the_try_and_another_engine_answers(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def silent(answer: Any) -> None:
        await answer.wait_left()

    stuck, quick = await start_backend(silent), await start_backend()
    site = await start_site(*kit.objects(stuck, quick, trafficPolicy={"timeout": "150ms"}))
    for _ in range(4):
        assert (await site.post())[0] == 200
    assert all(request.left.is_set() for request in stuck.requests), "a try given up is aborted at the engine"
    assert site.sample("retries_total", reason="timeout") == len(stuck.requests)


async def test_headers_that_never_come_end_in_503(start_site: Any, start_backend: Any, kit: Any) -> None:
    async def silent(answer: Any) -> None:
        await answer.wait_left()

    backend = await start_backend(silent)
    site = await start_site(*kit.objects(backend, trafficPolicy={"timeout": "100ms"}))
    began = time.monotonic()
    status, body = await site.post()
    assert status == 503
    assert "no response headers within 0.1 s" in body["error"]["message"]
    assert time.monotonic() - began >= 0.1
    assert len(backend.requests) == 1


async def test_the_header_timeout_does_not_cut_a_long_stream(start_site: Any, start_backend: Any, kit: Any) -> None:
    async def slow(answer: Any) -> None:
        await answer.begin(content_type="text/event-stream")
        for i in range(6):
            await answer.write(kit.event({"choices": [i]}))
            await asyncio.sleep(0.05)
        await answer.end(b"data: [DONE]\n\n")

    site = await start_site(*kit.objects(await start_backend(slow), trafficPolicy={"timeout": "100ms"}))
    text = await site.stream()
    assert text.count(b"data: ") == 7


async def test_attempts_of_the_manifest_are_obeyed(start_site: Any, start_backend: Any, kit: Any) -> None:
    # The reference accepts trafficPolicy.retry and never reads it (its defect 1).
    backends = await three(start_backend, *[failing(503)] * 3)
    site = await start_site(*kit.objects(*backends, trafficPolicy={"retry": {"attempts": 0}}))
    assert (await site.post())[0] == 503
    assert sum(len(backend.requests) for backend in backends) == 1


async def test_busy_engines_are_a_429_with_retry_after_and_not_an_error(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    # The reference answers 400 "can't schedule" when every pod is overloaded (its defect 3).
    backend = await start_backend()
    settings = RoutingSettings(limits=LimitSettings(engine_requests_max=10), admission=AdmissionSettings(enabled=False))
    site = await start_site(*kit.objects(backend), settings=settings)
    site.ingress.loads.load("default/e0").peers = Counts(10, 0, 0)
    async with site.client.post("/v1/completions", json={"model": "m", "prompt": "x"}) as response:
        assert response.status == 429
        assert response.headers["retry-after"] == "1"
        assert (await response.json())["error"]["code"] == "engines_busy"
    site.ingress.loads.load("default/e0").peers = Counts(9, 0, 0)
    assert (await site.post())[0] == 200
    site.ingress.loads.load("default/e0").peers = Counts()


async def test_least_request_sends_work_to_the_idle_engine(start_site: Any, start_backend: Any, kit: Any) -> None:
    backends = [await start_backend() for _ in range(3)]
    settings = RoutingSettings(scheduling=SchedulingSettings(filters=("ready",)))
    site = await start_site(*kit.objects(*backends), settings=settings)
    for i in (0, 1):
        site.ingress.loads.add(f"default/e{i}", Counts(50))
    for _ in range(40):
        assert (await site.post())[0] == 200
    assert len(backends[2].requests) >= 36
    for i in (0, 1):
        site.ingress.loads.add(f"default/e{i}", Counts(-50))


async def test_with_no_other_left_only_the_engine_that_was_not_reached_is_asked_again(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def breaks(answer: Any) -> None:
        await answer.begin()  # and ends the connection before any byte of the body

    answers, broken = await three(start_backend, failing(500), breaks)
    site = await start_site(
        *kit.objects(answers, broken, trafficPolicy={"retry": {"attempts": 5, "retryInterval": "1ms"}})
    )
    for i in range(1, 5):
        assert (await site.post())[0] == 503
        assert len(answers.requests) == i, "an engine that answered is not asked again"
    assert len(broken.requests) == 4 * 5


async def test_an_engines_429_that_does_not_say_when_gets_a_retry_after(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def busy(answer: Any) -> None:
        await answer.reply(429, {})

    site = await start_site(*kit.objects(await start_backend(busy)))
    async with site.client.post("/v1/completions", json={"model": "m", "prompt": "x"}) as response:
        assert (response.status, response.headers.getall("retry-after")) == (429, ["1"])
