"""Over real sockets: the retry budget, an engine's `Retry-After`, and engines that are ejected and come back."""

from __future__ import annotations

from typing import Any

from hekla.routing.config import RoutingSettings
from hekla.routing.traffic.breaker import State
from hekla.routing.traffic.settings import (
    EjectionSettings,
    RetryBudgetSettings,
    TrafficSettings,
)


def failing(status: int, **headers: str) -> Any:
    async def behave(answer: Any) -> None:
        await answer.reply(status, {"error": {"message": "no"}}, **headers)

    return behave


def with_traffic(**parts: Any) -> RoutingSettings:
    return RoutingSettings(traffic=TrafficSettings(**parts))


async def test_a_spent_budget_ends_the_tries(start_site: Any, start_backend: Any, kit: Any) -> None:
    backends = [await start_backend(failing(502)) for _ in range(4)]
    retries = RetryBudgetSettings(ratio=0, floor_per_s=0, burst=3)
    settings = with_traffic(retries=retries, ejection=EjectionSettings(enabled=False))
    site = await start_site(*kit.objects(*backends), settings=settings)
    for _ in range(3):
        assert (await site.post())[0] == 503
    assert sum(len(backend.requests) for backend in backends) == 3 + 3, "three first tries and three paid ones"
    assert site.sample("retries_denied_total", model_server="default/s") == 2


async def test_the_budget_grows_with_the_requests(start_site: Any, start_backend: Any, kit: Any) -> None:
    backends = [await start_backend(failing(502)) for _ in range(2)]
    retries = RetryBudgetSettings(ratio=0.2, floor_per_s=0, burst=1)
    settings = with_traffic(retries=retries, ejection=EjectionSettings(enabled=False))
    site = await start_site(*kit.objects(*backends), settings=settings)
    for _ in range(50):
        await site.post()
    tries = site.sample("retries_total")
    assert 9 <= tries <= 11, "one saved up, and one in five"


async def test_an_engine_that_says_how_long_it_is_busy_is_left_alone_for_that_long(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    busy, free = await start_backend(failing(429, retry_after="3600")), await start_backend()
    site = await start_site(*kit.objects(busy, free))
    for _ in range(30):
        assert (await site.post())[0] == 200
    assert len(busy.requests) <= 1
    load = site.ingress.loads.load("default/e0")
    left_s = load.suspect_until_s - site.ingress._clock.monotonic()
    assert not busy.requests or 0 < left_s <= 30, "an hour is not believed"


async def test_an_engine_that_keeps_failing_is_ejected_and_recovers_by_probes(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    bad, good = await start_backend(failing(503)), await start_backend()
    ejection = EjectionSettings(consecutive_failures=3, base_s=0.3, max_s=0.3, probes_needed=2)
    site = await start_site(*kit.objects(bad, good), settings=with_traffic(ejection=ejection))
    health = site.ingress.traffic.health
    for _ in range(100):
        assert (await site.post())[0] == 200, "the client never sees it"
        if health.state("default/e0") is State.OPEN:
            break
    assert len(bad.requests) == 3
    assert site.ingress.loads.load("default/e0").ejected
    bad.behave = kit.chat
    for _ in range(5000):
        await site.post()
        if health.state("default/e0") is State.CLOSED:
            break
    assert health.state("default/e0") is State.CLOSED
    assert site.sample("engine_health_total", event="recovered") == 1
    health.check()


async def test_a_request_that_every_engine_fails_at_ejects_none(start_site: Any, start_backend: Any, kit: Any) -> None:
    async def fails_at_poison(answer: Any) -> None:
        if "poison" in answer.json:
            await answer.reply(500, {"error": "boom"})
        else:
            await kit.chat(answer)

    backends = [await start_backend(fails_at_poison) for _ in range(3)]
    site = await start_site(*kit.objects(*backends))
    for _ in range(20):
        assert (await site.post(poison=1))[0] == 503
    assert site.sample("engine_health_total", event="ejected") == 0
    assert (await site.post())[0] == 200


async def test_a_500_that_another_engine_makes_good_counts_against_the_first(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    bad, good = await start_backend(failing(500)), await start_backend()
    settings = with_traffic(ejection=EjectionSettings(consecutive_failures=3))
    site = await start_site(*kit.objects(bad, good), settings=settings)
    for _ in range(60):
        assert (await site.post())[0] == 200
    assert len(bad.requests) == 3
    assert site.sample("engine_health_total", event="ejected") == 1


async def test_a_manifest_sets_its_own_numbers(start_site: Any, start_backend: Any, kit: Any) -> None:
    bad, good = await start_backend(failing(503)), await start_backend()
    policy = {"outlierDetection": {"consecutiveFailures": 1, "baseEjectionTime": "1h"}}
    site = await start_site(*kit.objects(bad, good, trafficPolicy=policy))
    for _ in range(40):
        assert (await site.post())[0] == 200
    assert len(bad.requests) == 1
