"""Sticky sessions over real sockets: by header, by a cookie of the ingress, across replicas, and when an engine goes."""

from __future__ import annotations

from typing import Any

import pytest

BODY = {"model": "m", "messages": []}
BY_HEADER = {"sources": [{"type": "Header", "name": "X-User"}]}


def who(backends: list[Any]) -> list[int]:
    return [len(backend.requests) for backend in backends]


async def ask(site: Any, user: str, **headers: str) -> None:
    async with site.client.post("/v1/chat/completions", json=BODY, headers={"x-user": user, **headers}) as response:
        assert response.status == 200


async def site_of(start_site: Any, kit: Any, backends: list[Any], **sticky: Any) -> Any:
    _, server, *engines = kit.objects(*backends)
    return await start_site(kit.model_route(sessionSticky=sticky or BY_HEADER), server, *engines)


async def test_a_session_stays_at_one_engine_and_sessions_spread(start_site: Any, start_backend: Any, kit: Any) -> None:
    backends = [await start_backend() for _ in range(3)]
    site = await site_of(start_site, kit, backends)
    for user in range(12):
        before = who(backends)
        for _ in range(5):
            await ask(site, f"user-{user}")
        assert sorted(now - then for now, then in zip(who(backends), before, strict=True)) == [0, 0, 5]
    assert min(who(backends)) > 0
    assert site.sample("sticky_requests_total", model_route="default/r", outcome="home") == 60


async def test_replicas_that_share_nothing_send_a_session_to_the_same_engine(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    backends = [await start_backend() for _ in range(3)]
    sites = [await site_of(start_site, kit, backends) for _ in range(3)]
    for user in range(6):
        before = who(backends)
        for site in sites:
            await ask(site, f"user-{user}")
        assert sorted(now - then for now, then in zip(who(backends), before, strict=True)) == [0, 0, 3]


async def test_a_session_whose_engine_dies_moves_once_and_stays(start_site: Any, start_backend: Any, kit: Any) -> None:
    backends = [await start_backend() for _ in range(3)]
    site = await site_of(start_site, kit, backends)
    await ask(site, "a")
    home = who(backends).index(1)
    await backends[home].stop()
    left = [backend for i, backend in enumerate(backends) if i != home]
    for _ in range(6):
        await ask(site, "a")
    assert sorted(who(left)) == [0, 6]


async def test_without_a_session_requests_spread_as_ever(start_site: Any, start_backend: Any, kit: Any) -> None:
    backends = [await start_backend() for _ in range(2)]
    site = await site_of(start_site, kit, backends)
    for _ in range(40):
        assert (await site.post())[0] == 200
    assert min(who(backends)) > 0
    assert site.sample("sticky_requests_total") == 0


async def test_a_client_without_a_session_is_given_a_cookie_that_brings_it_back(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    backends = [await start_backend() for _ in range(3)]
    site = await site_of(start_site, kit, backends, setCookie={"name": "sid"}, ttlSeconds=60)
    for _ in range(6):
        before = who(backends)
        async with site.client.post("/v1/chat/completions", json=BODY, cookies={"sid": ""}) as response:
            cookie = response.cookies["sid"]
            assert (cookie["max-age"], cookie["httponly"], cookie["path"]) == ("60", True, "/")
        for _ in range(3):
            headers = {"cookie": f"sid={cookie.value}"}
            async with site.client.post("/v1/chat/completions", json=BODY, headers=headers) as response:
                assert "set-cookie" not in response.headers
        assert sorted(now - then for now, then in zip(who(backends), before, strict=True)) == [0, 0, 4]
        site.client.cookie_jar.clear()
    assert all("cookie" not in request.headers for backend in backends for request in backend.requests)


async def test_streams_carry_the_cookie_too(start_site: Any, start_backend: Any, kit: Any) -> None:
    site = await site_of(start_site, kit, [await start_backend()], setCookie={})
    async with site.client.post("/v1/chat/completions", json={**BODY, "stream": True}) as response:
        assert "hekla-session" in response.cookies
        assert (await response.read()).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("sticky", [None, BY_HEADER])
async def test_a_conversation_never_changes_its_version_during_a_canary(
    start_site: Any, start_backend: Any, kit: Any, sticky: Any
) -> None:
    stable, canary = await start_backend(), await start_backend()
    rules = [{"targetModels": [{"modelServerName": "s", "weight": 70}, {"modelServerName": "v2", "weight": 30}]}]
    spec = {} if sticky is None else {"sessionSticky": sticky}
    site = await start_site(
        kit.model_route(rules=rules, **spec), kit.model_server(),
        kit.model_server("v2", model="served-v2", workloadSelector={"matchLabels": {"app": "v2"}}),
        kit.engine("e0", stable.url), kit.engine("e1", canary.url, app="v2"),
    )  # fmt: skip
    met = 0
    for user in range(40):
        before = len(canary.requests)
        for _ in range(3):
            await ask(site, f"user-{user}", **{"x-session-id": f"user-{user}"})
        assert len(canary.requests) - before in (0, 3)
        met += len(canary.requests) - before == 3
    assert 4 <= met <= 22
