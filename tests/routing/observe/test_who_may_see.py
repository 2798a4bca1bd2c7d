"""With callers that are asked for keys: who gets explanations and debug pages; and `auth` of routing.yaml at work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt import encode
from jwt.algorithms import ECAlgorithm

from hekla.platform.api.admission import admit
from hekla.platform.base.clock import SystemClock
from hekla.routing.config import RoutingSettings, SchedulingSettings
from hekla.routing.identity.api_keys import NewKey, new_key
from hekla.routing.identity.settings import IdentitySettings

PAGES = ("/debug", "/debug/decisions", "/debug/config_dump/settings")


def key(seed: int) -> NewKey:
    return new_key(bytes((seed * 7 + i) % 256 for i in range(42)))


def key_object(name: str, new: NewKey, *scopes: str) -> dict[str, Any]:
    spec = {"id": new.id, "digest": new.digest, "scopes": list(scopes)}
    return admit({"apiVersion": "hekla.io/v1alpha1", "kind": "ApiKey", "metadata": {"name": name}, "spec": spec})


@pytest.mark.parametrize(
    ("scopes", "sees", "debugs"),
    [(("inference",), False, 403), (("inference", "metrics"), True, 403), (("admin",), True, 200)],
)
async def test_explanations_need_the_scope_and_the_debug_pages_an_admin(
    start_site: Any, start_backend: Any, kit: Any, scopes: tuple[str, ...], sees: bool, debugs: int
) -> None:
    backend = await start_backend()
    settings = RoutingSettings(identity=IdentitySettings(mode="required"))
    site = await start_site(*kit.objects(backend), key_object("k", key(1), *scopes), settings=settings)
    await kit.until(lambda: site.ingress.is_synced, "keys are read")
    headers = {"authorization": f"Bearer {key(1).key}"}
    body = {"model": "m", "messages": []}
    response = await site.client.post("/v1/chat/completions", json=body, headers={**headers, "x-hekla-explain": "1"})
    assert response.status == 200 and ("x-hekla-explain" in response.headers) is sees
    asked = len(backend.requests)
    await site.client.post("/v1/chat/completions", json=body, headers={**headers, "x-hekla-explain": "body"})
    assert (len(backend.requests) == asked) is sees, "who may not see gets an ordinary answer"
    for page in PAGES:
        assert (await site.client.get(page, headers=headers)).status == debugs
        assert (await site.client.get(page)).status == 401


async def test_auth_in_routing_yaml_lets_its_issuers_tokens_in_and_nobody_else(
    start_site: Any, start_backend: Any, kit: Any, tmp_path: Path
) -> None:
    """As the reference router's configuration has it: `auth: {issuer, audiences, jwksUri}`."""
    private = ec.generate_private_key(ec.SECP256R1())
    jwk = {**ECAlgorithm.to_jwk(private.public_key(), as_dict=True), "kid": "k1", "use": "sig"}

    async def keys(answer: Any) -> None:
        await answer.reply(200, {"keys": [jwk]})

    idp = await start_backend(keys)
    path = tmp_path / "routing.yaml"
    path.write_text(json.dumps({"auth": {"issuer": "https://idp", "audiences": ["hekla"], "jwksUri": idp.url}}))
    settings = RoutingSettings(scheduling=SchedulingSettings(config_file=str(path)))
    site = await start_site(*kit.objects(await start_backend()), settings=settings)
    await kit.until(lambda: site.ingress.is_synced and bool(idp.requests), "keys are read")
    now_s = SystemClock().now()

    async def status(**changes: Any) -> int:
        claims = {"iss": "https://idp", "aud": "hekla", "sub": "alice", "iat": now_s, "exp": now_s + 300, **changes}
        token = encode(claims, private, algorithm="ES256", headers={"kid": "k1"})
        headers = {"authorization": f"Bearer {token}"}
        body = {"model": "m", "messages": []}
        async with site.client.post("/v1/chat/completions", json=body, headers=headers) as response:
            return int(response.status)

    jwks = site.ingress.identity.jwks.issuers["https://idp"]
    await kit.until(lambda: jwks.keys is not None, "the issuer's keys are read")
    assert await status() == 200
    assert await status(aud="other") == await status(iss="https://evil") == await status(exp=now_s - 300) == 401
    assert (await site.post())[0] == 401
