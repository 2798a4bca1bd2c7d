"""Requests for LoRA adapters through a real ingress: routed by name, waiting for what is not loaded yet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from hekla.routing.config import RoutingSettings
from hekla.routing.lora.settings import LoraSettings

Json = dict[str, Any]
DEADLINE_S = 10.0


def declared(*names: str, **more: Any) -> list[Json]:
    return [{"name": name, "uri": f"/adapters/{name}", **more} for name in names]


def with_models(engine: Json, *models: str) -> Json:
    return {**engine, "status": {**engine["status"], "models": list(models)}}


async def waiting(site: Any, kit: Any, count: int) -> None:
    await kit.until(lambda: site.ingress.adapters.waiting == count, f"{count} requests wait")


async def test_r10_adapters_are_routed_by_name_to_engines_that_have_them_and_unknown_ones_are_404(
    start_site: Callable[..., Any], start_backend: Callable[..., Any], kit: Any
) -> None:
    """R10: lora-A and lora-B answer 200 under their own names; lora-NonExistent is 404 "route not found"."""
    first, second = await start_backend(), await start_backend()
    site = await start_site(
        kit.model_route(loraAdapters=["lora-A", "lora-B"]),
        kit.model_server(),
        with_models(kit.engine("e1", first.url), "served-m", "lora-A"),
        with_models(kit.engine("e2", second.url), "served-m", "lora-B"),
    )
    for _ in range(3):
        assert await site.post(model="lora-A") == (200, _answered("lora-A"))
        assert await site.post(model="lora-B") == (200, _answered("lora-B"))
    assert {one.json["model"] for one in first.requests} == {"lora-A"}
    assert {one.json["model"] for one in second.requests} == {"lora-B"}
    status, body = await site.post(model="lora-NonExistent")
    assert status == 404
    assert "route not found" in body["error"]["message"]


def _answered(model: str) -> Json:
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
    return {"model": model, "choices": [{"message": {"content": "hi"}}], "usage": usage}


async def test_a_declared_adapter_is_waited_for_and_the_platform_told(
    start_site: Callable[..., Any], start_backend: Callable[..., Any], kit: Any
) -> None:
    backend, told = await start_backend(), await start_backend()
    told.behave = _accept
    engine = with_models(kit.engine("e1", backend.url), "served-m")
    site = await start_site(
        kit.model_route(loraAdapters=["a"]),
        kit.model_server(loraAdapters=declared("a")),
        engine,
        platform_url=lambda: told.url,
    )
    asking = asyncio.gather(site.post(model="a"), site.post(model="a"))
    await waiting(site, kit, 2)
    await kit.until(lambda: bool(told.requests), "the platform is told")
    assert told.requests[0].path.endswith("/namespaces/default/modelservers/s/status")
    (report,) = told.requests[0].json["status"]["loraDemand"].values()
    assert report["waiting"] == ["a"]
    assert report["counts"] == {"a": 2}
    site.source.put(with_models(engine, "served-m", "a"))
    assert [status for status, _ in await asyncio.wait_for(asking, DEADLINE_S)] == [200, 200]
    assert site.sample("adapter_wait_seconds_count", model="a") == 2


async def _accept(answer: Any) -> None:
    await answer.reply(200, {})


async def test_an_adapter_not_loaded_in_time_is_503_with_retry_after_and_never_404(
    start_site: Callable[..., Any], start_backend: Callable[..., Any], kit: Any
) -> None:
    backend = await start_backend()
    site = await start_site(
        kit.model_route(loraAdapters=["a"]),
        kit.model_server(loraAdapters=declared("a")),
        with_models(kit.engine("e1", backend.url), "served-m"),
        settings=RoutingSettings(lora=LoraSettings(load_wait_s=0.2)),
    )
    async with site.client.post("/v1/completions", json={"model": "a", "prompt": "x"}) as response:
        assert response.status == 503
        assert response.headers["retry-after"] == "1"
        assert (await response.json())["error"]["code"] == "adapter_not_loaded"
    assert backend.requests == []
    assert site.sample("adapter_not_loaded_total", model="a") == 1


async def test_too_many_waiting_requests_are_refused_at_once(
    start_site: Callable[..., Any], start_backend: Callable[..., Any], kit: Any
) -> None:
    backend = await start_backend()
    engine = with_models(kit.engine("e1", backend.url), "served-m")
    site = await start_site(
        kit.model_route(loraAdapters=["a"]), kit.model_server(loraAdapters=declared("a")), engine,
        settings=RoutingSettings(lora=LoraSettings(waiting_max=1)),
    )  # fmt: skip
    asking = asyncio.gather(site.post(model="a"))
    await waiting(site, kit, 1)
    status, body = await site.post(model="a")
    assert (status, body["error"]["code"]) == (503, "adapter_not_loaded")
    site.source.put(with_models(engine, "served-m", "a"))
    assert [status for status, _ in await asyncio.wait_for(asking, DEADLINE_S)] == [200]


async def test_an_engine_that_has_just_unloaded_the_adapter_is_passed_over(
    start_site: Callable[..., Any], start_backend: Callable[..., Any], kit: Any
) -> None:
    """Its 404 is the moment's, not the client's: another engine serves the request."""
    stale, good = await start_backend(), await start_backend()
    stale.behave = _not_found
    site = await start_site(
        kit.model_route(loraAdapters=["a"]),
        kit.model_server(loraAdapters=declared("a")),
        with_models(kit.engine("e1", stale.url), "served-m", "a"),
        with_models(kit.engine("e2", good.url), "served-m", "a"),
    )
    assert [(await site.post(model="a"))[0] for _ in range(8)] == [200] * 8


async def _not_found(answer: Any) -> None:
    await answer.reply(404, {"error": {"message": "The model `a` does not exist."}})


async def test_an_adapter_whose_only_engine_dies_is_waited_for_elsewhere(
    start_site: Callable[..., Any], start_backend: Callable[..., Any], kit: Any
) -> None:
    dead, good = await start_backend(), await start_backend()
    lost = with_models(kit.engine("e1", dead.url), "served-m", "a")
    spare = with_models(kit.engine("e2", good.url), "served-m")
    site = await start_site(
        kit.model_route(loraAdapters=["a"]), kit.model_server(loraAdapters=declared("a")), lost, spare
    )
    await dead.stop()
    asking = asyncio.gather(site.post(model="a"))
    await asyncio.sleep(0)
    site.source.remove(lost)
    await waiting(site, kit, 1)
    site.source.put(with_models(spare, "served-m", "a"))
    assert [status for status, _ in await asyncio.wait_for(asking, DEADLINE_S)] == [200]


async def test_routable_adapters_need_no_route_and_are_listed(
    start_site: Callable[..., Any], start_backend: Callable[..., Any], kit: Any
) -> None:
    backend = await start_backend()
    site = await start_site(
        kit.model_server(loraAdapters=[*declared("open", routable=True), *declared("closed")]),
        with_models(kit.engine("e1", backend.url), "served-m", "open", "closed"),
    )
    assert (await site.post(model="open"))[0] == 200
    assert json.loads(backend.requests[0].body)["model"] == "open"
    assert (await site.post(model="closed"))[0] == 404
    async with site.client.get("/v1/models") as response:
        assert [one["id"] for one in (await response.json())["data"]] == ["open"]


async def test_requests_to_the_base_model_wait_for_nothing(
    start_site: Callable[..., Any], start_backend: Callable[..., Any], kit: Any
) -> None:
    backend = await start_backend()
    site = await start_site(
        kit.model_route(loraAdapters=["a"]), kit.model_server(loraAdapters=declared("a")),
        with_models(kit.engine("e1", backend.url), "served-m"),
    )  # fmt: skip
    assert (await site.post())[0] == 200


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [("load_wait_s", -1, "0 or more"), ("waiting_max", -1, "0 or more"), ("report_s", 9.0, "0.1 to 8")],
)
def test_a_setting_out_of_range_is_named_with_what_is_allowed(field: str, value: float, allowed: str) -> None:
    with pytest.raises(ValueError, match=rf"lora.{field} is {value}; allowed: {allowed}"):
        LoraSettings(**{field: value})  # type: ignore[arg-type]
