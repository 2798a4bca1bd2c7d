"""Identity at a real ingress: real sockets, an engine that keeps what it was sent, objects that change meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from hekla.platform.server.local_server import LocalServer
from hekla.routing.config import AccessLogSettings, RoutingSettings
from hekla.routing.identity.settings import IdentitySettings, JwtSettings, Price
from hekla.routing.identity.usage_reports import HttpUsageSink
from hekla.routing.source import HttpObjectSource

Make = Callable[..., Any]
ON = RoutingSettings(identity=IdentitySettings(mode="required"))


@pytest_asyncio.fixture
async def start(
    start_site: Make, start_backend: Make, kit: Any
) -> AsyncIterator[Callable[..., Awaitable[tuple[Any, Any]]]]:
    async def begin(*objects: Any, settings: RoutingSettings = ON, **options: Any) -> tuple[Any, Any]:
        backend = await start_backend()
        routes = [kit.model_route(), kit.model_route("r2", model="other")]
        site = await start_site(
            *routes, kit.model_server(), kit.engine("e", backend.url), *objects, settings=settings,
            **options,
        )  # fmt: skip
        await kit.until(lambda: site.ingress.is_synced, "routes and keys are read")
        return site, backend

    yield begin


async def post(
    site: Any, path: str = "/v1/chat/completions", *, headers: Any = None, **body: Any
) -> tuple[int, Any, Any]:
    sent = {"model": "m", "messages": [], "max_tokens": 5, **body}
    async with site.client.post(path, json=sent, headers=headers or {}) as response:
        return response.status, await response.json(content_type=None), response.headers


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_without_a_key_openais_error_and_nothing_reaches_an_engine(start: Make) -> None:
    site, backend = await start()
    status, body, headers = await post(site)
    assert (status, body["error"]["code"], body["error"]["type"]) == (401, "invalid_api_key", "invalid_request_error")
    assert headers["www-authenticate"].startswith("Bearer")
    assert not backend.requests


async def test_anthropics_path_gets_anthropics_error(start: Make) -> None:
    site, _ = await start()
    status, body, _ = await post(site, "/v1/messages", headers={"x-api-key": "wrong"})
    assert (status, body["error"]["type"]) == (401, "authentication_error")


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
async def test_a_key_is_taken_from_each_librarys_header_and_never_reaches_the_engine(
    start: Make, key: Make, api_key: Make, header: str
) -> None:
    site, backend = await start(api_key("ci", key(1)))
    secret = key(1).key
    value = f"Bearer {secret}" if header == "authorization" else secret
    extra = {"cookie": f"key={secret}", "proxy-authorization": f"Bearer {secret}", "x-mine": "kept"}
    status, _, _ = await post(site, headers={header: value, **extra})
    assert status == 200
    (seen,) = backend.requests
    assert secret not in repr(seen.scope["headers"]) + seen.body.decode()
    assert not {"authorization", "x-api-key", "api-key", "cookie", "proxy-authorization"} & set(seen.headers)
    assert seen.headers["x-mine"] == "kept"


async def test_a_revoked_key_is_refused_as_soon_as_the_watch_brings_it(
    start: Make, key: Make, api_key: Make, kit: Any
) -> None:
    site, _ = await start(api_key("ci", key(1)))
    assert (await post(site, headers=bearer(key(1).key)))[0] == 200
    site.source.put(api_key("ci", key(1), revoked=True))
    known = site.ingress.identity
    await kit.until(lambda: known.directory.keys[key(1).id].revoked, "the revocation arrived")
    assert (await post(site, headers=bearer(key(1).key)))[0] == 401


async def test_a_deleted_key_is_refused_and_a_new_one_accepted_without_a_restart(
    start: Make, key: Make, api_key: Make, kit: Any
) -> None:
    old = api_key("old", key(1))
    site, _ = await start(old)
    site.source.remove(old)
    site.source.put(api_key("new", key(2)))
    await kit.until(lambda: set(site.ingress.identity.directory.keys) == {key(2).id}, "both changes arrived")
    assert (await post(site, headers=bearer(key(1).key)))[0] == 401
    assert (await post(site, headers=bearer(key(2).key)))[0] == 200


async def test_a_model_that_may_not_be_used_looks_like_one_that_is_not_there(
    start: Make, key: Make, tenant: Make, api_key: Make
) -> None:
    site, backend = await start(tenant("t", models=["o*"]), api_key("ci", key(1), tenant="t"))
    hidden = await post(site, headers=bearer(key(1).key))
    missing = await post(site, headers=bearer(key(1).key), model="no")
    assert hidden[0] == missing[0] == 404
    assert hidden[1]["error"]["message"].replace("'m'", "") == missing[1]["error"]["message"].replace("'no'", "")
    assert not backend.requests
    assert (await post(site, headers=bearer(key(1).key), model="other"))[0] == 200


async def test_the_model_list_shows_what_the_caller_may_use(
    start: Make, key: Make, tenant: Make, api_key: Make
) -> None:
    keys = [api_key("all", key(1)), api_key("few", key(2), tenant="t")]
    site, _ = await start(tenant("t", models=["oth*"]), *keys)

    async def get(path: str, secret: str) -> tuple[int, Any]:
        async with site.client.get(path, headers=bearer(secret)) as response:
            return response.status, await response.json()

    assert [item["id"] for item in (await get("/v1/models", key(1).key))[1]["data"]] == ["m", "other"]
    assert [item["id"] for item in (await get("/v1/models", key(2).key))[1]["data"]] == ["other"]
    assert (await get("/v1/models/m", key(2).key))[0] == 404
    assert (await get("/v1/models/other", key(2).key))[0] == 200
    assert (await get("/v1/models", "nonsense"))[0] == 401


async def test_the_resource_api_takes_an_admin_key_only_and_sees_the_ingresss_token_instead(
    start: Make, start_backend: Make, key: Make, api_key: Make
) -> None:
    async def platform(answer: Any) -> None:
        await answer.reply(200, {"ok": True})

    api = await start_backend(platform)
    keys = [api_key("user", key(1)), api_key("admin", key(2), scopes=["admin"])]
    site, _ = await start(*keys, platform_url=lambda: api.url, platform_token=lambda: "internal")
    for path in ("/apis", "/apis/x/v1/things", "/hekla/v1/status", "/openapi/v3"):
        async with site.client.get(path) as response:
            assert (response.status, (await response.json())["reason"]) == (401, "Unauthorized")
        async with site.client.get(path, headers=bearer(key(1).key)) as response:
            assert (response.status, (await response.json())["reason"]) == (403, "Forbidden")
        assert not api.requests
        async with site.client.get(path, headers=bearer(key(2).key)) as response:
            assert response.status == 200
        assert api.requests.pop().headers["authorization"] == "Bearer internal"


async def test_metrics_take_a_key_and_health_does_not(start: Make, key: Make, api_key: Make) -> None:
    site, _ = await start(api_key("prom", key(1), scopes=["metrics"]))
    for path, secret, expected in (
        ("/health", "", 200), ("/metrics", "", 401), ("/metrics", key(1).key, 200), ("/v1/models", key(1).key, 403),
    ):  # fmt: skip
        async with site.client.get(path, headers=bearer(secret) if secret else {}) as response:
            assert (path, response.status) == (path, expected)


async def test_optional_lets_strangers_use_models_and_nothing_else(start: Make, tenant: Make) -> None:
    settings = RoutingSettings(identity=IdentitySettings(mode="optional"))
    site, _ = await start(tenant("anonymous", models=["m"]), settings=settings)
    assert (await post(site))[0] == 200
    assert (await post(site, model="other"))[0] == 404
    assert (await post(site, headers=bearer("wrong")))[0] == 401
    async with site.client.get("/apis") as response:
        assert response.status == 401


async def test_while_identity_is_off_any_key_will_do(start: Make) -> None:
    site, backend = await start(settings=RoutingSettings())
    assert (await post(site, headers=bearer("EMPTY")))[0] == 200
    assert "authorization" not in backend.requests[0].headers


async def test_until_the_keys_are_read_the_ingress_is_not_healthy_and_says_503(start_unread_site: Make) -> None:
    site = await start_unread_site(settings=ON)
    assert (await post(site, headers=bearer("any")))[0] == 503
    async with site.client.get("/health") as response:
        assert response.status == 503


async def test_a_spent_budget_is_429_with_the_time_it_begins_anew(
    start: Make, key: Make, tenant: Make, api_key: Make, kit: Any
) -> None:
    """A request is counted by the engine's own usage: 7 in, of them 2 cached, and 3 out."""
    team = tenant("t", budgets=[{"window": "month", "tokens": 10, "models": ["m"]}])
    site, backend = await start(team, api_key("ci", key(1), tenant="t"))
    assert (await post(site, headers=bearer(key(1).key)))[0] == 200
    status, body, headers = await post(site, headers=bearer(key(1).key))
    assert (status, body["error"]["code"]) == (429, "budget_exceeded")
    assert int(headers["retry-after"]) > 0
    assert headers["x-should-retry"] == "false"
    assert "begins anew at 2" in body["error"]["message"]
    assert (await post(site, headers=bearer(key(1).key), model="other"))[0] == 200, "another model is not budgeted"
    assert len(backend.requests) == 2
    site.source.put(tenant("t", budgets=[{"window": "month", "tokens": 1000, "models": ["m"]}]))
    await kit.until(lambda: _limit(site) == 1000, "the raised budget arrived")
    assert (await post(site, headers=bearer(key(1).key)))[0] == 200, "a raised budget holds at once"


def _limit(site: Any) -> Any:
    return site.ingress.identity.directory.tenants["t"].caller.budgets[0].tokens


async def test_money_is_counted_by_the_routes_price_and_streams_too(
    start: Make, key: Make, tenant: Make, api_key: Make, kit: Any
) -> None:
    settings = RoutingSettings(identity=IdentitySettings(mode="required", prices=(Price("*", input=1000.0),)))
    team = tenant("t", budgets=[{"window": "day", "money": 100}])
    site, _ = await start(team, api_key("ci", key(1), tenant="t"), settings=settings)
    route = kit.model_route()
    route["metadata"]["annotations"] = {"hekla.io/price": json.dumps({"input": 2, "cached": 0.5, "output": 10})}
    site.source.put(route)
    identity = site.ingress.identity
    await kit.until(lambda: "m" in identity.directory.prices, "the price arrived")
    await post(site, headers=bearer(key(1).key))
    (patch,) = identity.ledger.untold().values()
    (spent,) = patch[identity.ledger.replica].values()
    assert spent["nanos"] == (5 * 2 + 2 * 0.5 + 3 * 10) * 1000
    async with site.client.post(
        "/v1/chat/completions", json={"model": "other", "messages": [], "stream": True}, headers=bearer(key(1).key)
    ) as response:
        await response.read()
    (patch,) = identity.ledger.untold().values()
    assert patch[identity.ledger.replica]["day:*"]["nanos"] == 41_000 + 7 * 1000 * 1000
    assert patch[identity.ledger.replica]["day:*"]["tokens"] == 20


async def test_the_log_names_tenant_user_and_key_and_no_secret(
    start: Make, key: Make, tenant: Make, api_key: Make, tmp_path: Path
) -> None:
    log = AccessLogSettings(format="json", output=str(tmp_path / "log"), flush_interval_s=0.01)
    settings = RoutingSettings(identity=IdentitySettings(mode="required"), access_log=log)
    site, _ = await start(tenant("t"), api_key("ci", key(1), tenant="t", user="bot"), settings=settings)
    await post(site, headers=bearer(key(1).key))
    await post(site, headers=bearer(key(2).key))
    await site.ingress.stop()
    text = (tmp_path / "log").read_text()
    good, bad = [json.loads(line) for line in text.splitlines()]
    assert (good["tenant"], good["user"], good["key_id"]) == ("t", "bot", key(1).id)
    assert bad["error"] == {"type": "authentication", "message": f"key {key(2).id}: unknown"}
    assert key(1).key not in text
    assert key(2).key not in text


async def test_metrics_count_tenants_and_refusals(start: Make, key: Make, tenant: Make, api_key: Make) -> None:
    site, _ = await start(tenant("t"), api_key("ci", key(1), tenant="t"))
    await post(site, headers=bearer(key(1).key))
    await post(site)
    assert site.sample("tenant_requests_total", tenant="t", model="m", status_code="200") == 1
    assert site.sample("tenant_tokens_total", tenant="t", token_type="output") == 3
    assert site.sample("authentications_total", method="api_key", outcome="ok") == 1
    assert site.sample("authentications_total", outcome="invalid_api_key") == 1


async def test_a_strangers_body_is_not_read(start: Make) -> None:
    site, _ = await start()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{"
    writer.write(head)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in answer.lower()
    writer.close()


async def test_tokens_are_judged_by_keys_read_from_the_issuer(
    start: Make, start_backend: Make, issuer: Any, kit: Any
) -> None:
    """Discovery, a rotated key, and an issuer that goes away, over real HTTP."""

    async def provider(answer: Any) -> None:
        if answer.path == "/.well-known/openid-configuration":
            await answer.reply(200, {"issuer": issuer.url, "jwks_uri": issuer.url + "/keys"})
        else:
            await answer.reply(200, issuer.jwks)

    server = await start_backend(provider)
    issuer.url = server.url
    trusted = JwtSettings(issuer=issuer.url, audiences=("hekla",))
    identity = IdentitySettings(mode="required", jwt=(trusted,), jwks_unknown_key_s=0)
    site, backend = await start(settings=RoutingSettings(identity=identity))
    state = site.ingress.identity.jwks.issuers[issuer.url]
    await kit.until(lambda: state.keys is not None, "the keys are read")
    token = issuer.token()
    assert (await post(site, headers=bearer(token)))[0] == 200
    assert token not in repr(backend.requests[0].scope["headers"])

    issuer.rotate("k2")
    fresh = issuer.token()
    assert (await post(site, headers=bearer(fresh)))[0] == 503, "an unknown key makes them be read; no request waits"
    await kit.until(lambda: "k2" in state.keys.keys, "the new key is read")
    assert (await post(site, headers=bearer(fresh)))[0] == 200
    assert (await post(site, headers=bearer(token)))[0] in (401, 503), "the withdrawn key's token was remembered"

    await server.stop()
    assert (await post(site, headers=bearer(issuer.token(sub="bob"))))[0] == 200, "the last keys stay"


async def test_replicas_share_a_budget_through_the_resource_api(
    start_site: Make, start_backend: Make, kit: Any, key: Make, tenant: Make, api_key: Make
) -> None:
    """What one replica spent the other counts, and so does one that starts later."""
    backend = await start_backend()
    team = tenant("t", budgets=[{"window": "month", "tokens": 10}])
    objects = [*kit.objects(backend), team, api_key("ci", key(1), tenant="t")]
    identity = IdentitySettings(mode="required", budget_report_s=0.05)
    async with aiohttp.ClientSession() as session:
        with LocalServer() as api:
            api.edit(lambda store: _stored(store, team))
            sink = HttpUsageSink(lambda: session, lambda: api.url, lambda: "")
            source = HttpObjectSource(lambda: session, lambda: api.url, silence_s=30)
            sites = [await start_site(*objects, settings=RoutingSettings(identity=identity)) for _ in range(3)]
            first = sites[0]
            assert (await post(first, headers=bearer(key(1).key)))[0] == 200
            for subject, usage in first.ingress.identity.ledger.untold().items():
                await sink.merge_usage(subject, usage)
            (told,), _ = await source.list("Tenant")
            assert told["spec"] == team["spec"], "telling what was spent changes nothing else"
            for other in sites[1:]:
                other.source.put(told)
                ledger = other.ingress.identity.ledger
                await kit.until(lambda ledger=ledger: "Tenant default/t" in ledger.known, "the others have learnt it")
                assert (await post(other, headers=bearer(key(1).key)))[0] == 429


def _stored(store: Any, obj: Any) -> None:
    store.create(obj)
