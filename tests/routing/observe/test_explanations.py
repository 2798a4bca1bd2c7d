"""What clients and admins can see of a request: headers, dry runs, the debug pages."""

from __future__ import annotations

import json
from typing import Any

from hekla.routing.config import RoutingSettings
from hekla.routing.limits.settings import LimitRule, RateLimitSettings
from hekla.routing.observe.decisions import replay
from hekla.routing.observe.explanation import header_value
from hekla.routing.observe.settings import ObserveSettings


async def asked(site: Any, explain: str = "1", path: str = "/v1/chat/completions", **body: Any) -> Any:
    headers = {"x-hekla-explain": explain}
    return await site.client.post(path, json={"model": "m", "messages": [], **body}, headers=headers)


async def told(site: Any, **body: Any) -> dict[str, Any]:
    response = await asked(site, **body)
    return dict(json.loads(response.headers["x-hekla-explain"]))


async def test_a_header_tells_match_queue_candidates_scores_and_choice(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    backends = [await start_backend() for _ in range(3)]
    site = await start_site(*kit.objects(*backends))
    for stream in (False, True):
        explained = await told(site, stream=stream)
        assert explained["match"]["route"] == "default/r"
        assert explained["match"]["weights"] == {"s": 1} or explained["match"]["target"] == "s"
        assert explained["queue"] == {"waiting_ahead": 0, "waited_ms": 0.0}
        decision = explained["decision"]
        engines = {candidate["engine"] for candidate in decision["candidates"]}
        assert engines == {"default/e0", "default/e1", "default/e2"}
        assert decision["chosen"] == explained["tries"][-1]["engine"]
        assert "ttft_s" in decision["candidates"][0]["forecast"]
        assert decision["candidates"][0]["scores"].keys() == {"cost"}


async def test_a_failed_try_is_told_beside_the_one_that_answered(start_site: Any, start_backend: Any, kit: Any) -> None:
    async def fails(answer: Any) -> None:
        await answer.reply(503, {"error": "no"})

    backends = [await start_backend(fails), await start_backend()]
    site = await start_site(*kit.objects(*backends))
    seen = [await told(site) for _ in range(8)]
    tries = next(one["tries"] for one in seen if len(one["tries"]) == 2)
    assert "503" in tries[0]["failed"] and "failed" not in tries[1]
    assert tries[0]["engine"] != tries[1]["engine"]


async def test_a_refusal_is_explained_too(start_site: Any, kit: Any) -> None:
    site = await start_site(kit.model_route(), kit.model_server())
    response = await asked(site)
    assert response.status == 503
    explained = json.loads(response.headers["x-hekla-explain"])
    assert explained["match"]["server"] == "default/s" and explained["tries"] == []


async def test_a_dry_run_answers_the_explanation_and_asks_no_engine_and_takes_of_no_limit(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    backend = await start_backend()
    settings = RoutingSettings(rate_limits=RateLimitSettings((LimitRule("r", requests=2, unit="day"),)))
    site = await start_site(*kit.objects(backend), settings=settings)
    for _ in range(5):
        response = await asked(site, "body")
        body = await response.json()
        assert response.status == 200 and body["dry_run"]
        assert body["decision"]["chosen"] == "default/e0"
        assert body["limits"] == [
            {"rule": "r", "kind": "requests", "limit": 2, "unit": "day", "share": 2.0, "left": 2.0, "reset_s": 0.0}
        ]
    assert not backend.requests
    assert (await site.post())[0] == 200


async def test_a_dry_run_says_why_nobody_would_serve(start_site: Any, kit: Any) -> None:
    site = await start_site(kit.model_route(), kit.model_server())
    response = await asked(site, "body")
    assert (await response.json())["refused"] == "no engine is ready"


async def test_where_it_is_off_nothing_is_told(start_site: Any, start_backend: Any, kit: Any) -> None:
    backend = await start_backend()
    site = await start_site(
        *kit.objects(backend), settings=RoutingSettings(observe=ObserveSettings(explain_scope="off"))
    )
    response = await asked(site)
    assert response.status == 200 and "x-hekla-explain" not in response.headers
    response = await asked(site, "body")
    assert "choices" in await response.json(), "the header means nothing: an ordinary answer"
    assert len(backend.requests) == 2


def test_a_header_keeps_its_bound_whatever_it_tells_and_is_ascii() -> None:
    candidates = [{"engine": f"namespace/engine-{i}", "total": 0.5, "scores": {"cost": 0.5}} for i in range(64)]
    excluded = {f"namespace/out-{i}": "circuit" for i in range(64)}
    explained: dict[str, Any] = {
        "request_id": "r", "model": "modèle-😀" * 10, "match": None, "limits": [], "tries": [],
        "decision": {"chosen": "namespace/engine-0", "candidates": candidates, "excluded": excluded},
    }  # fmt: skip
    for bound in (512, 1024, 4096, 8192):
        value = header_value(explained, bound)
        assert len(value) <= bound and value.isascii()
        read = json.loads(value)
        assert read["request_id"] == "r" and (bound > 4096 or read["truncated"])
    read = json.loads(header_value(explained, 4096))
    assert read["model"] == "modèle-😀" * 10
    assert read["decision"]["candidates"][0]["engine"] == "namespace/engine-0", "the best are told"


async def test_the_latest_decisions_are_kept_bounded_and_can_be_replayed(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    backends = [await start_backend() for _ in range(2)]
    site = await start_site(*kit.objects(*backends), settings=RoutingSettings(observe=ObserveSettings(decisions_max=3)))
    for _ in range(5):
        await site.post()
    response = await site.client.get("/debug/decisions?count=10&model=m")
    decisions = (await response.json())["decisions"]
    assert [one["number"] for one in decisions] == [5, 4, 3]
    for one in decisions:
        assert one["engine"] == one["plan"]["chosen"]
        assert one["engine"] in replay(one["plan"])
    response = await site.client.get("/debug/decisions?count=0")
    assert response.status == 400


async def test_the_debug_pages_show_objects_loads_and_settings_without_secrets(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    backend = await start_backend()
    gossip = kit.gossip_settings.__class__(host="127.0.0.1", key="top-secret")
    site = await start_site(*kit.objects(backend), settings=RoutingSettings(gossip=gossip))
    await site.post()
    index = await (await site.client.get("/debug")).json()
    assert len(index["paths"]) > 10
    pages: dict[str, Any] = {}
    for path in index["paths"]:
        response = await site.client.get(path)
        text = await response.text()
        assert response.status == 200 and "top-secret" not in text
        pages.update(json.loads(text))
    assert pages["settings"]["gossip"]["key"] == "***"
    assert [route["name"] for route in pages["modelroutes"]] == ["default/r"]
    assert pages["pods"][0]["engine"]["url"] == backend.url
    assert pages["loads"]["default/e0"]["requests"] == 0
    one = await (await site.client.get("/debug/config_dump/namespaces/default/modelservers/s")).json()
    assert one["name"] == "default/s"
    assert (await site.client.get("/debug/config_dump/namespaces/default/modelservers/x")).status == 404
    assert (await site.client.get("/debug/config_dump/nothing")).status == 404


async def test_the_debug_pages_are_not_there_for_what_comes_through_a_proxy(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    site = await start_site(*kit.objects(await start_backend()))
    response = await site.client.get("/debug", headers={"x-forwarded-for": "10.0.0.1"})
    assert response.status == 404


async def test_clients_are_told_what_is_left_of_their_limits(start_site: Any, start_backend: Any, kit: Any) -> None:
    rules = (
        LimitRule("r", requests=2, unit="day"), LimitRule("t", input_tokens=1000, output_tokens=5000, unit="day"),
    )  # fmt: skip
    site = await start_site(
        *kit.objects(await start_backend()), settings=RoutingSettings(rate_limits=RateLimitSettings(rules))
    )
    statuses, left = [], []
    for _ in range(3):
        async with site.client.post("/v1/chat/completions", json={"model": "m", "messages": []}) as response:
            statuses.append(response.status)
            left.append(response.headers["x-ratelimit-remaining-requests"])
            assert response.headers["x-ratelimit-limit-requests"] == "2"
            assert response.headers["x-ratelimit-limit-input-tokens"] == "1000"
            assert response.headers["x-ratelimit-reset-requests"].endswith("s")
    assert (statuses, left) == ([200, 200, 429], ["1", "0", "0"])
