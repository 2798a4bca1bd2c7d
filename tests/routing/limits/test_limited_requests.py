"""Rate limits over real sockets: routes' limits, what is given back, what is counted, and three replicas together."""

from __future__ import annotations

import asyncio
from typing import Any

from hekla.routing.admission.settings import AdmissionSettings
from hekla.routing.config import RoutingSettings
from hekla.routing.limits.settings import LimitRule, RateLimitSettings

TEN_TOKENS = "0123456789" * 4


def limited(*rules: LimitRule, **options: Any) -> RoutingSettings:
    return RoutingSettings(rate_limits=RateLimitSettings(rules=rules), **options)


async def ask(site: Any, model: str = "m", prompt: str = TEN_TOKENS) -> tuple[int, Any, Any]:
    async with site.client.post("/v1/completions", json={"model": model, "prompt": prompt}) as response:
        return response.status, await response.json(), response.headers


def objects(kit: Any, *backends: Any, **limit: Any) -> list[Any]:
    _, *rest = kit.objects(*backends)
    return [kit.model_route(rateLimit=limit, loraAdapters=["adapter"]), *rest]


async def test_a_routes_limit_is_kept_and_every_429_is_counted_row_L9(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    """The backend counts 7 prompt tokens, which replace the estimated 10: after three requests 9 are left."""
    site = await start_site(*objects(kit, await start_backend(), inputTokensPerUnit=30, unit="hour"))
    answers = [await ask(site) for _ in range(9)]
    refused = [(body, headers) for status, body, headers in answers if status == 429]
    assert len(refused) == 6
    body, headers = refused[0]
    assert body["error"]["code"] == "rate_limit_exceeded" and "ModelRoute default/r" in body["error"]["message"]
    assert int(headers["retry-after"]) > 1
    counted = site.sample("rate_limit_exceeded_total", model="m", limit_type="input_tokens", path="/v1/completions")
    assert counted == site.sample("requests_total", status_code="429") == len(refused)
    assert site.sample("requests_total", error_type="input_rate_limit") == len(refused)


async def test_a_prompt_above_the_limit_is_told_not_to_come_back_row_L5(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    site = await start_site(*objects(kit, await start_backend(), inputTokensPerUnit=5, unit="minute"))
    status, body, headers = await ask(site)
    assert (status, body["error"]["code"]) == (429, "prompt_above_rate_limit")
    assert "retry-after" not in headers


async def test_a_limit_that_is_removed_from_a_live_route_holds_no_more(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    site = await start_site(*objects(kit, await start_backend(), outputTokensPerUnit=1, unit="day"))
    assert [(await ask(site))[0] for _ in range(2)] == [200, 429]
    assert (await ask(site, "adapter"))[0] == 429  # its adapters' names don't go around it
    site.source.put(kit.model_route())
    await site.table_where(lambda ingress: ingress.keeper.table.routes["m"][0].rate_limit is None)
    assert [(await ask(site))[0] for _ in range(3)] == [200, 200, 200]


async def test_what_the_queue_refuses_takes_nothing(start_site: Any, start_backend: Any, kit: Any) -> None:
    gate = asyncio.Event()

    async def held(answer: Any) -> None:
        await gate.wait()
        await kit.chat(answer)

    settings = limited(
        LimitRule("three", requests=3, unit="day"), admission=AdmissionSettings(concurrent_max=1, timeout_s=0.05)
    )
    site = await start_site(*kit.objects(await start_backend(held)), settings=settings)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(ask(site))
        await kit.until(lambda: site.sample("fairness_queue_inflight") == 1, "the first is at the engine")
        for _ in range(5):
            assert (await ask(site))[1]["error"]["code"] == "queue_timeout"
        gate.set()
    assert first.result()[0] == 200
    assert [(await ask(site))[0] for _ in range(3)] == [200, 200, 429]


async def test_output_that_was_generated_is_owed(start_site: Any, start_backend: Any, kit: Any) -> None:
    """The backend generates 3 tokens; of 4 a day one request leaves one, the next takes two too many."""
    site = await start_site(
        *kit.objects(await start_backend()), settings=limited(LimitRule("o", output_tokens=4, unit="day"))
    )
    assert [(await ask(site))[0] for _ in range(3)] == [200, 200, 429]
    assert site.sample("requests_total", error_type="output_rate_limit") == 1


async def test_three_replicas_keep_one_limit_row_L6(start_site: Any, start_backend: Any, kit: Any) -> None:
    """L6: 300 tokens a minute over three replicas, whose limits would be 900 each for itself."""
    peers: list[tuple[str, int]] = []
    backend = await start_backend()
    settings = limited(LimitRule("r", requests=12, unit="day"))
    sites = [
        await start_site(
            *kit.objects(backend), settings=settings, peers=lambda n=n: [p for i, p in enumerate(peers) if i != n]
        )
        for n in range(3)
    ]
    peers.extend(("127.0.0.1", site.ingress.gossip.port) for site in sites)
    await kit.until(
        lambda: (
            all(site.ingress.limits.ledger.replicas == 3 for site in sites)
            and all("peers=2" in repr(site.ingress.limits.ledger) for site in sites)
        ),
        "they hear each other",
    )
    for site in sites:
        assert (await ask(site))[0] == 200
    granted = 3
    for n in range(30):
        await kit.until(lambda total=granted: all(round(used(site)) == total for site in sites), "they agree")
        granted += (await ask(sites[n % 3]))[0] == 200
    assert granted == 12


def used(site: Any) -> float:
    return float(site.ingress.limits.limiter.used("r\x1erequests\x1e\x1fm", 0.0))
