"""What the platform keeps to itself once authentication is on."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import httpx
import pytest

from hekla.platform.api.meta import Ref
from hekla.platform.base.clock import SystemClock
from hekla.platform.base.errors import Invalid, Permanent
from hekla.platform.base.ids import SeededIds
from hekla.platform.root.credentials import ADMIN_KEY_NAME, api_token, ensure_admin_key
from hekla.platform.root.identity_settings import identity_settings
from hekla.platform.root.service import PlatformService
from hekla.platform.root.settings import PlatformSettings
from hekla.platform.sdk import Client
from hekla.platform.sdk.address import find_api_key
from hekla.platform.store.memory import MemoryStore
from hekla.routing.identity.api_keys import id_of, is_key_of

REF = Ref("ApiKey", "default", ADMIN_KEY_NAME)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(SystemClock(), SeededIds(1))


def mode_of(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_the_admin_key_is_its_owners_alone_and_stored_as_a_digest(tmp_path: Path, store: MemoryStore) -> None:
    file = ensure_admin_key(tmp_path, store)
    key = file.read_text().strip()
    spec = store.get(REF)["spec"]
    assert mode_of(file) == 0o600
    assert (id_of(key.encode()), spec["scopes"]) == (spec["id"], ["admin"])
    assert is_key_of(key.encode(), spec["digest"])
    assert key not in repr(store.get(REF))


def test_a_good_admin_key_is_kept(tmp_path: Path, store: MemoryStore) -> None:
    before = ensure_admin_key(tmp_path, store).read_text()
    assert ensure_admin_key(tmp_path, store).read_text() == before


@pytest.mark.parametrize("loss", ["file", "object", "revoked", "another"])
def test_an_admin_key_that_is_no_longer_good_is_made_anew(tmp_path: Path, store: MemoryStore, loss: str) -> None:
    file = ensure_admin_key(tmp_path, store)
    before, obj = file.read_text(), store.get(REF)
    if loss == "file":
        file.unlink()
    elif loss == "object":
        store.delete(REF)
    elif loss == "revoked":
        store.update({**obj, "spec": {**obj["spec"], "revoked": True}})
    else:
        file.write_text("hk-not-a-key\n")
    key = ensure_admin_key(tmp_path, store).read_text().strip()
    spec = store.get(REF)["spec"]
    assert key != before.strip()
    assert is_key_of(key.encode(), spec["digest"])
    assert not spec.get("revoked")
    assert mode_of(file) == 0o600


def test_the_api_token_survives_restarts(tmp_path: Path) -> None:
    token = api_token(tmp_path)
    assert len(token) >= 40
    assert api_token(tmp_path) == token
    assert mode_of(tmp_path / "api-token") == 0o600


async def test_with_a_token_the_resource_api_answers_the_ingress_alone(platform: Any, store: MemoryStore) -> None:
    settings = platform.settings
    service = PlatformService(
        settings, store, platform.cluster, SystemClock(), SeededIds(2), api_token="t0ken"
    )  # fmt: skip
    url = await service.start("127.0.0.1")
    try:
        async with httpx.AsyncClient(base_url=url) as client:
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "t0ken"}):
                refused = await client.get("/apis", headers=headers)
                assert (refused.status_code, refused.json()["reason"]) == (401, "Unauthorized")
                assert (await client.post("/hekla/v1/apply", json={}, headers=headers)).status_code == 401
            assert (await client.get("/apis", headers={"authorization": "Bearer t0ken"})).status_code == 200
            assert (await client.get("/healthz")).status_code == 200
    finally:
        await service.stop(stop_engines=False)


def _home(tmp_path: Path, endpoint: str) -> dict[str, str]:
    (tmp_path / "cluster.json").write_text(f'{{"endpoint": "{endpoint}"}}')
    (tmp_path / "admin-key").write_text("hk-secret\n")
    return {"HEKLA_HOME": str(tmp_path)}


def test_the_admin_key_is_shown_to_its_own_endpoint_and_to_no_other(tmp_path: Path) -> None:
    environ = _home(tmp_path, "http://127.0.0.1:8123")
    assert find_api_key("http://127.0.0.1:8123", environ) == "hk-secret"
    assert find_api_key("http://elsewhere:8123", environ) == ""
    assert find_api_key("http://elsewhere:8123", {**environ, "HEKLA_API_KEY": "hk-mine"}) == "hk-mine"
    assert find_api_key("http://elsewhere:8123", {"HEKLA_HOME": str(tmp_path / "none")}) == ""


def test_the_sdk_shows_its_key_to_both_apis() -> None:
    with Client("http://127.0.0.1:9", api_key="hk-mine") as client:
        assert client.openai().api_key == "hk-mine"
        assert "hk-mine" not in repr(client)


@pytest.mark.parametrize(
    ("host", "data_plane", "is_open"),
    [
        ("127.0.0.1", "direct", False), ("::1", "direct", False), ("localhost", "direct", False),
        ("0.0.0.0", "direct", True), ("10.0.0.5", "direct", True), ("127.0.0.1", "haproxy", True),
    ],
)  # fmt: skip
def test_an_endpoint_that_others_can_reach_is_known_as_one(host: str, data_plane: Any, is_open: bool) -> None:
    assert PlatformSettings(host=host, data_plane=data_plane).is_open_to_others is is_open


def test_settings_of_identity_come_from_the_environment() -> None:
    environ = {"HEKLA_AUTH": "required", "HEKLA_JWT_ISSUER": "https://i.example", "HEKLA_JWT_AUDIENCES": "a, b,"}
    found = identity_settings(PlatformSettings.read(environ))
    assert found.mode == "required"
    assert (found.jwt[0].issuer, found.jwt[0].audiences, found.jwt[0].user_claim) == (
        "https://i.example",
        ("a", "b"),
        "sub",
    )


def test_settings_that_make_no_sense_are_told_before_anything_starts() -> None:
    with pytest.raises(Invalid, match=r"HEKLA_AUTH.*choose one of off, optional, required"):
        PlatformSettings.read({"HEKLA_AUTH": "on"})
    with pytest.raises(Permanent, match="auth is off"):
        identity_settings(PlatformSettings(jwt_issuer="https://i.example"))
    with pytest.raises(Permanent, match=r"issuer is 'i\.example'"):
        identity_settings(PlatformSettings(auth="required", jwt_issuer="i.example"))
