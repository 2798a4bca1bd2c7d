"""Requests through a real ingress to real sockets: the acceptance rows R1…R5, R10, R11 and what surrounds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from yarl import URL

from hekla.routing.config import AccessLogSettings, RoutingSettings


async def test_a_chat_request_reaches_the_engine_under_the_servers_model_name(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    backend = await start_backend()
    site = await start_site(*kit.objects(backend))
    status, body = await site.post(temperature=0.1)
    assert status == 200
    assert body["model"] == "served-m"
    assert backend.requests[0].json == {"model": "served-m", "messages": [], "temperature": 0.1}


async def test_an_unknown_model_is_not_found_and_counted_as_unknown(start_site: Any, kit: Any) -> None:
    site = await start_site(kit.model_route(), kit.model_server())
    status, body = await site.post(model="secret")
    assert status == 404
    assert body["error"]["code"] == "model_not_found"
    assert "route not found" in body["error"]["message"]
    assert '"m"' not in json.dumps(body)
    counted = site.sample("requests_total", model="unknown", error_type="route_not_found", status_code="404")
    assert counted == 1


async def test_a_request_without_a_usable_model_is_model_not_found(start_site: Any) -> None:
    site = await start_site()
    for model in ("", 5, None, ["m"]):
        status, body = await site.post(model=model)
        assert (status, body["error"]["code"]) == (404, "model_not_found")
        assert body["error"]["message"].startswith("model not found")


async def test_a_request_without_prompt_is_prompt_not_found(start_site: Any, kit: Any) -> None:
    site = await start_site(kit.model_route())
    async with site.client.post("/v1/chat/completions", data=b'{"model":"m"}') as response:
        body = await response.json()
        assert response.status == 404
        assert body["error"]["code"] == "prompt_not_found"
        assert body["error"]["message"].startswith("prompt not found")


async def test_bad_json_is_a_400_that_says_where(start_site: Any) -> None:
    site = await start_site()
    for raw in (b"", b"{", b"[1]", b'{"model":"m"} x', b'{"model":NaN}', b'{"a":' + b"[" * 100_000):
        async with site.client.post("/v1/completions", data=raw) as response:
            body = await response.json()
            assert response.status == 400, raw[:20]
            assert body["error"]["type"] == "invalid_request_error"
            assert body["error"]["code"] == "invalid_json"
    assert site.sample("requests_total", error_type="request_parsing", status_code="400") == 6


async def test_adapters_are_sent_under_their_own_name(start_site: Any, start_backend: Any, kit: Any) -> None:
    backend = await start_backend()
    route = kit.model_route(loraAdapters=["lora-A", "lora-B"])
    site = await start_site(route, kit.model_server(), kit.engine("e", backend.url))
    for adapter in ("lora-A", "lora-B"):
        status, body = await site.post(model=adapter)
        assert (status, body["model"]) == (200, adapter)
    status, _ = await site.post(model="lora-NonExistent")
    assert status == 404


async def test_a_route_to_a_missing_server_is_a_404_of_its_own(start_site: Any, kit: Any) -> None:
    site = await start_site(kit.model_route())
    status, body = await site.post()
    assert (status, body["error"]["code"]) == (404, "model_server_not_found")
    assert site.sample("requests_total", error_type="model_server_matching", backend_type="unresolved") == 1


async def test_no_ready_engine_is_a_503_with_retry_after(start_site: Any, kit: Any) -> None:
    loading = kit.engine("e", "http://127.0.0.1:9", phase="Loading")
    site = await start_site(kit.model_route(), kit.model_server(), loading)
    async with site.client.post("/v1/completions", json={"model": "m", "prompt": "x"}) as response:
        assert response.status == 503
        assert response.headers["retry-after"] == "1"
        assert (await response.json())["error"]["code"] == "no_ready_engine"


async def test_anthropic_clients_get_errors_in_their_shape(start_site: Any) -> None:
    site = await start_site()
    status, body = await site.post("/v1/messages", model="none")
    assert status == 404
    assert body["type"] == "error"
    assert body["error"]["type"] == "not_found_error"


async def test_the_model_list_names_models_and_adapters(start_site: Any, kit: Any) -> None:
    site = await start_site(kit.model_route(loraAdapters=["b"]), kit.model_route("r2", model="a"))
    async with site.client.get("/v1/models") as response:
        body = await response.json()
    assert [model["id"] for model in body["data"]] == ["a", "b", "m"]
    assert body["data"][0] == {"id": "a", "object": "model", "created": 0, "owned_by": "hekla"}


async def test_numbers_order_and_unknown_fields_reach_the_engine_verbatim(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    backend = await start_backend()
    site = await start_site(*kit.objects(backend))
    raw = b'{ "zeta": 1.50000000000000000001e3, "model": "m", "prompt": "\\u00e9", "x": {"b":1, "a" : -0.0}, "n":18446744073709551616 }'
    async with site.client.post("/v1/completions", data=raw) as response:
        assert response.status == 200
    sent = backend.requests[0].body
    assert sent == (
        b'{"zeta":1.50000000000000000001e3,"model":"served-m","prompt":"\\u00e9","x":{"b":1, "a" : -0.0},'
        b'"n":18446744073709551616}'
    )


async def test_a_body_that_needs_no_edit_is_sent_byte_for_byte(start_site: Any, start_backend: Any, kit: Any) -> None:
    backend = await start_backend()
    site = await start_site(kit.model_route(), kit.model_server(model=""), kit.engine("e", backend.url))
    raw = b' {"model" : "m",  "prompt":"x" } '
    async with site.client.post("/v1/completions", data=raw) as response:
        assert response.status == 200
    assert backend.requests[0].body == raw


async def test_every_inference_path_is_routed_and_keeps_its_query(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    backend = await start_backend()
    site = await start_site(*kit.objects(backend))
    paths = [
        "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages",
        "/tokenize", "/detokenize",
    ]  # fmt: skip
    for path in paths:
        async with site.client.post(path + "?a=b%26c", json={"model": "m", "input": "x"}) as response:
            assert response.status == 200, path
    assert [request.path for request in backend.requests] == paths
    assert {request.scope["query_string"] for request in backend.requests} == {b"a=b%26c"}


async def test_a_wrong_method_or_path_says_so(start_site: Any) -> None:
    site = await start_site()
    async with site.client.get("/v1/chat/completions") as response:
        assert response.status == 405
    async with site.client.post("/v1/nothing", data=b"{}") as response:
        assert response.status == 404


async def test_health_follows_the_table_and_draining(start_site: Any, kit: Any) -> None:
    site = await start_site()
    async with site.client.get("/health") as response:
        assert response.status == 200
    assert await site.ingress.drain(1.0)
    async with site.client.get("/health") as response:
        assert response.status == 503


async def test_the_table_follows_changes_and_outlives_the_platform(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    first, second = await start_backend(), await start_backend()
    site = await start_site(*kit.objects(first))
    site.source.away()
    assert (await site.post())[0] == 200
    site.source.put(kit.engine("e0", second.url))
    site.source.away(False)
    await kit.until(
        lambda: site.ingress.keeper.table.servers[("default", "s")].backends[0].url == second.url, "the new address"
    )
    assert (await site.post())[0] == 200
    assert (len(first.requests), len(second.requests)) == (1, 1)


async def test_before_the_table_was_read_every_answer_is_503_with_retry_after(kit: Any, start_unread_site: Any) -> None:
    site = await start_unread_site(kit.model_route(), kit.model_server())
    asked = [("POST", "/v1/completions", b'{"model":"m","prompt":"x"}'), ("GET", "/v1/models", None)]
    for method, path, data in [*asked, ("GET", "/v1/models/m", None), ("GET", "/health", None)]:
        async with site.client.request(method, path, data=data) as response:
            assert response.status == 503, path
            assert response.headers["retry-after"] == "1"
            assert "the routing table has not been read yet" in await response.text()
    site.source.away(False)
    await site.ingress.keeper.wait_synced()
    async with site.client.get("/v1/models/m") as response:
        assert response.status == 200


async def test_one_model_is_told_and_an_unknown_one_is_not_found(start_site: Any, kit: Any) -> None:
    site = await start_site(kit.model_route(model="org/name"), kit.model_route("r2", model="é b"))
    for path in ("/v1/models/org/name", "/v1/models/org%2Fname", "/models/org/name"):
        async with site.client.get(URL(path, encoded=True)) as response:
            assert response.status == 200, path
            assert await response.json() == {"id": "org/name", "object": "model", "created": 0, "owned_by": "hekla"}
    async with site.client.get("/v1/models/é b") as response:
        assert (await response.json())["id"] == "é b"
    for i in range(3):
        async with site.client.get(f"/v1/models/none-{i}") as response:
            body = await response.json()
            assert (response.status, body["error"]["code"], body["error"]["param"]) == (404, "model_not_found", "model")
    assert site.sample("requests_total", path="/v1/models/{id}", status_code="404") == 3


async def test_head_is_get_without_a_body_and_other_methods_are_told_what_is_allowed(start_site: Any, kit: Any) -> None:
    site = await start_site(kit.model_route())
    for path in ("/v1/models", "/v1/models/m", "/health", "/metrics"):
        async with site.client.head(path) as response:
            assert (response.status, await response.read()) == (200, b""), path
            assert int(response.headers["content-length"]) > 0
        for method in ("POST", "OPTIONS", "DELETE"):
            async with site.client.request(method, path) as response:
                assert (response.status, response.headers["allow"]) == (405, "GET, HEAD"), path
    async with site.client.options("/v1/chat/completions") as response:
        assert (response.status, response.headers["allow"]) == (405, "POST")


async def test_a_models_name_of_any_length_takes_little_of_a_log_line(
    start_site: Any, tmp_path: Path, kit: Any
) -> None:
    path = tmp_path / "log"
    log = AccessLogSettings(output=str(path), flush_interval_s=0.01)
    site = await start_site(settings=RoutingSettings(access_log=log))
    assert (await site.post(model="x" * 1_000_000))[0] == 404
    await kit.until(lambda: path.exists() and path.read_text().endswith("\n"), "logged")
    assert len(path.read_text()) < 1000
