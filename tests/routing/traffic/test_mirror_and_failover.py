"""Over real sockets: copies for a shadow target that nobody notices, and targets that stand in for others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hekla.routing.admission.settings import AdmissionSettings
from hekla.routing.config import LimitSettings, RoutingSettings
from hekla.routing.load import Counts
from hekla.routing.traffic.settings import FailoverSettings, MirrorSettings, TrafficSettings


def rule(*targets: str, **more: Any) -> list[Any]:
    return [{"targetModels": [{"modelServerName": name} for name in targets], **more}]


def second(kit: Any, name: str = "b") -> Any:
    return kit.model_server(name, model=f"served-{name}", workloadSelector={"matchLabels": {"app": name}})


async def mirrored(start_site: Any, kit: Any, main: Any, shadow: Any, settings: Any = None, **mirror: Any) -> Any:
    return await start_site(
        kit.model_route(rules=rule("s", mirror={"modelServerName": "b", **mirror})), kit.model_server(), second(kit),
        kit.engine("e0", main.url), kit.engine("e1", shadow.url, app="b"), settings=settings,
    )  # fmt: skip


async def test_a_shadow_gets_a_marked_copy_under_its_own_model_name(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    main, shadow = await start_backend(), await start_backend()
    site = await mirrored(start_site, kit, main, shadow)
    assert (await site.post(temperature=0.5))[1]["model"] == "served-m"
    await kit.until(lambda: site.sample("mirrored_requests_total", outcome="2xx") == 1, "the copy has ended")
    (copy,) = shadow.requests
    assert copy.json == {"model": "served-b", "messages": [], "temperature": 0.5}
    assert copy.headers["x-hekla-mirror"] == "default/r"
    assert copy.headers["x-request-id"] != main.requests[0].headers["x-request-id"]
    assert "x-hekla-mirror" not in main.requests[0].headers
    assert site.sample("requests_total") == 1, "a copy is no request of a client"
    site.ingress.mirror.check()


async def test_a_shadow_that_hangs_or_fails_changes_nothing_for_the_client(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def hangs(answer: Any) -> None:
        await answer.wait_left()

    async def fails(answer: Any) -> None:
        await answer.reply(500, {})

    main = await start_backend()
    for behave in (hangs, fails):
        shadow = await start_backend(behave)
        settings = RoutingSettings(traffic=TrafficSettings(mirror=MirrorSettings(timeout_s=0.3)))
        site = await mirrored(start_site, kit, main, shadow, settings)
        for _ in range(5):
            assert (await site.post())[0] == 200
        await kit.until(lambda site=site: site.sample("mirrored_requests_total") == 5, "all copies have ended")
        load = site.ingress.loads.load("default/e1")
        assert (load.requests, load.ejected, load.suspect_until_s) == (0, False, float("-inf"))
        assert site.ingress.mirror.in_flight == 0
        site.ingress.mirror.check()


async def test_copies_are_bounded_in_number_and_bytes(start_site: Any, start_backend: Any, kit: Any) -> None:
    released = asyncio.Event()

    async def waits(answer: Any) -> None:
        await released.wait()
        await kit.chat(answer)

    for limits in (MirrorSettings(concurrency_max=2), MirrorSettings(bytes_max=70)):
        released.clear()
        main, shadow = await start_backend(), await start_backend(waits)
        site = await mirrored(start_site, kit, main, shadow, RoutingSettings(traffic=TrafficSettings(mirror=limits)))
        for _ in range(6):
            assert (await site.post())[0] == 200
        assert site.ingress.mirror.in_flight == 2
        assert site.sample("mirrored_requests_total", outcome="dropped") == 4
        released.set()
        await kit.until(lambda site=site: site.ingress.mirror.in_flight == 0, "the copies have ended")
        assert site.ingress.mirror.bytes_held == 0


async def test_only_the_share_that_was_asked_for_is_copied(start_site: Any, start_backend: Any, kit: Any) -> None:
    main, shadow = await start_backend(), await start_backend()
    site = await mirrored(start_site, kit, main, shadow, percent=25)
    for _ in range(80):
        await site.post()
    await kit.until(lambda: site.ingress.mirror.in_flight == 0, "the copies have ended")
    assert 8 <= len(shadow.requests) <= 34


async def test_without_an_engine_of_the_shadow_the_copy_is_counted_as_such(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    main = await start_backend()
    route = kit.model_route(rules=rule("s", mirror={"modelServerName": "b"}))
    site = await start_site(route, kit.model_server(), second(kit), kit.engine("e0", main.url))
    assert (await site.post())[0] == 200
    assert site.sample("mirrored_requests_total", outcome="no_engine") == 1


async def failing_over(start_site: Any, kit: Any, *engines: Any, settings: Any = None, names: str = "b") -> Any:
    others = [{"modelServerName": name} for name in names]
    return await start_site(
        kit.model_route(rules=rule("s", failover=others)), kit.model_server(), *(second(kit, name) for name in names),
        *engines, settings=settings,
    )  # fmt: skip


async def test_a_target_without_a_ready_engine_gives_way_to_the_next(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    backend = await start_backend()
    site = await failing_over(start_site, kit, kit.engine("e1", backend.url, app="c"), names="bc")
    status, body = await site.post()
    assert (status, body["model"]) == (200, "served-c")
    assert site.sample("failovers_total", model_route="default/r", target="c", reason="not_ready") == 1
    assert site.sample("requests_total", backend_name="default/c", status_code="200") == 1


@pytest.mark.parametrize("behaviour", ["refuses", "fails"])
async def test_a_target_whose_engines_all_fail_gives_way(
    start_site: Any, start_backend: Any, kit: Any, behaviour: str
) -> None:
    async def fails(answer: Any) -> None:
        await answer.reply(503, {})

    broken, good = await start_backend(fails), await start_backend()
    if behaviour == "refuses":
        url, _ = broken.url, await broken.stop()
    else:
        url = broken.url
    site = await failing_over(start_site, kit, kit.engine("e0", url), kit.engine("e1", good.url, app="b"))
    status, body = await site.post()
    assert (status, body["model"]) == (200, "served-b")
    assert good.requests[0].json["model"] == "served-b"
    assert site.sample("failovers_total", target="b", reason="upstream_failed") == 1


async def test_when_every_target_fails_the_last_ones_reason_is_told(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def fails(answer: Any) -> None:
        await answer.reply(503, {"error": answer.json["model"]})

    broken = await start_backend(fails)
    engines = [kit.engine("e0", broken.url), kit.engine("e1", broken.url, app="b")]
    site = await failing_over(start_site, kit, *engines)
    status, body = await site.post()
    assert (status, body["error"]["code"]) == (503, "upstream_failed")
    assert "served-b" in body["error"]["message"]


async def test_a_stream_that_has_begun_never_fails_over(start_site: Any, start_backend: Any, kit: Any) -> None:
    async def breaks(answer: Any) -> None:
        await answer.begin(content_type="text/event-stream")
        await answer.write(kit.event({"choices": [{"index": 0, "delta": {"content": "a", "tool_calls": []}}]}))
        raise OSError

    broken, good = await start_backend(breaks), await start_backend()
    engines = [kit.engine("e0", broken.url), kit.engine("e1", good.url, app="b")]
    site = await failing_over(start_site, kit, *engines)
    text = await site.stream()
    assert b"served-b" not in text
    assert not good.requests


async def test_a_4xx_of_the_first_target_is_the_clients_to_see(start_site: Any, start_backend: Any, kit: Any) -> None:
    async def refuses(answer: Any) -> None:
        await answer.reply(400, {"error": "too long"})

    broken, good = await start_backend(refuses), await start_backend()
    engines = [kit.engine("e0", broken.url), kit.engine("e1", good.url, app="b")]
    site = await failing_over(start_site, kit, *engines)
    assert await site.post() == (400, {"error": "too long"})
    assert not good.requests


@pytest.mark.parametrize(("when_busy", "expected"), [(False, 429), (True, 200)])
async def test_a_busy_target_gives_way_only_when_the_settings_say_so(
    start_site: Any, start_backend: Any, kit: Any, when_busy: bool, expected: int
) -> None:
    async def busy(answer: Any) -> None:
        await answer.reply(429, {"error": "busy"})

    failover = TrafficSettings(failover=FailoverSettings(when_busy=when_busy))
    settings = RoutingSettings(
        traffic=failover, limits=LimitSettings(engine_requests_max=5), admission=AdmissionSettings(timeout_s=0.2)
    )
    broken, good = await start_backend(busy), await start_backend()
    engines = [kit.engine("e0", broken.url), kit.engine("e1", good.url, app="b")]
    site = await failing_over(start_site, kit, *engines, settings=settings)
    assert (await site.post())[0] == expected, "the engine itself is busy"
    site.ingress.loads.add("default/e0", Counts(5))
    assert (await site.post())[0] == expected, "the filters leave no engine"
    site.ingress.loads.add("default/e0", Counts(-5))
