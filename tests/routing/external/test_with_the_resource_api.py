"""From a manifest, through the real resource API, to a provider; and what the API tells of the key on the way."""

from __future__ import annotations

import dataclasses
from typing import Any

import aiohttp

from hekla.platform.api.hiding import REVEAL_HEADER
from hekla.platform.base.clock import SystemClock
from hekla.platform.base.ids import SeededIds
from hekla.platform.server.app import build_app
from hekla.platform.server.engine_logs import FakeLogSource
from hekla.platform.store.memory import MemoryStore
from hekla.routing.app import build_ingress
from hekla.routing.config import AccessLogSettings, RoutingSettings
from hekla.routing.server import serve

SECRET = "/apis/hekla.io/v1alpha1/namespaces/default/secrets/keys"


async def test_a_kubernetes_secret_reaches_the_provider_and_nobody_else(
    start_provider: Any, providers: Any, kit: Any
) -> None:
    server, clock = await start_provider(), SystemClock()
    store = MemoryStore(clock, SeededIds(1))
    api = await serve(build_app(store, logs=FakeLogSource(), summary=dict, clock=clock), "127.0.0.1", 0)
    api_url = f"http://127.0.0.1:{api.port}"
    quiet = dataclasses.replace(
        RoutingSettings(), gossip=kit.gossip_settings, access_log=AccessLogSettings(enabled=False)
    )
    ingress = build_ingress(quiet, clock=clock, ids=SeededIds(2), platform_url=lambda: api_url)
    await ingress.start()
    door = await serve(ingress.app, "127.0.0.1", 0)
    secret = providers.secret()
    own = secret.pop("spec")
    kubernetes = {**secret, "apiVersion": "v1", "stringData": own["stringData"], "type": "Opaque"}
    route = kit.model_route(rules=providers.rule())
    route["metadata"].pop("creationTimestamp")
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{door.port}") as client:
            objects = [kubernetes, providers.provider("p", server.url), route]
            async with client.post("/hekla/v1/apply", json={"objects": objects}) as response:
                assert response.status == 200, await response.text()
            for headers in ({}, {REVEAL_HEADER: "1"}):
                async with client.get(SECRET, headers=headers) as response:
                    assert response.status == 200
                    assert "sk-real" not in await response.text()
            await kit.until(
                lambda: ingress.keeper.table.knows("m") and ingress.providers.get(("default", "p")) is not None, "read"
            )
            async with client.post("/v1/chat/completions", json={"model": "m", "messages": []}) as response:
                assert response.status == 200, await response.text()
            assert server.headers[0]["authorization"] == "Bearer sk-real"
    finally:
        await door.stop()
        await ingress.stop()
        store.close()
        await api.stop()
