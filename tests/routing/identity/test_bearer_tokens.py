from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.errors import Unavailable
from hekla.routing.identity.authenticator import Doorkeeper
from hekla.routing.identity.bearer_tokens import claim_at, key_set_of
from hekla.routing.identity.directory import Directory
from hekla.routing.identity.directory_building import build_directory
from hekla.routing.identity.interface import ADMIN, Caller
from hekla.routing.identity.jwks import Jwks
from hekla.routing.identity.settings import IdentitySettings, JwtSettings
from hekla.routing.refusal import Refusal

NOW_S = 1_800_000_000.0
Make = Callable[..., Any]


async def no_page(url: str) -> bytes:
    raise Unavailable(url)


def door(
    issuer: Any, directory: Directory | None = None, *, unknown_tenants: bool = False, **changes: Any
) -> Doorkeeper:
    trusted = JwtSettings(issuer=issuer.url, audiences=("hekla", "other"), **changes)
    settings = IdentitySettings(mode="required", jwt=(trusted,), unknown_tenants=unknown_tenants)
    jwks = Jwks(settings, no_page, VirtualClock())
    jwks.issuers[issuer.url].keys = key_set_of(issuer.jwks)
    return Doorkeeper(settings, lambda: directory or Directory(), jwks)


def ask(keeper: Doorkeeper, token: str, now_s: float = NOW_S) -> Caller:
    return keeper.identify([(b"authorization", b"Bearer " + token.encode())], now_s)


def test_a_good_token_names_its_user_and_hands_its_claims_on(issuer: Any) -> None:
    """Feature row 101: JWT by JWKS, `sub` is the user."""
    caller = ask(door(issuer), issuer.token(NOW_S, team="red"))
    assert (caller.user, caller.tenant, caller.key_id, caller.claims["team"]) == ("alice", "default", "", "red")
    assert not caller.has_scope(ADMIN)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": None}, "exp"),
        ({"exp": NOW_S - 60}, "expired"),
        ({"exp": "soon"}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": float("nan")}, "exp"),
        ({"nbf": NOW_S + 61}, "nbf"),
        ({"iat": NOW_S + 61}, "iat"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "sub"),
        ({"iss": "https://evil.example"}, "none of the configured issuers"),
        ({"iss": None}, "iss"),
        ({"aud": "elsewhere"}, "udience"),
        ({"aud": None}, "aud"),
    ],
)
def test_a_token_with_a_wrong_claim_is_refused(issuer: Any, changes: Any, reason: str) -> None:
    with pytest.raises(Refusal) as refused:
        ask(door(issuer), issuer.token(NOW_S, **changes))
    assert (refused.value.status, refused.value.code) == (401, "invalid_api_key")
    assert reason in refused.value.log_message


@pytest.mark.parametrize(
    "changes", [{"exp": NOW_S - 59}, {"nbf": NOW_S + 60}, {"iat": NOW_S + 60}, {"aud": ["x", "other"]}]
)
def test_clocks_may_be_a_minute_off_and_one_audience_suffices(issuer: Any, changes: Any) -> None:
    assert ask(door(issuer), issuer.token(NOW_S, **changes)).user == "alice"


def _part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _claims(issuer: Any) -> Any:
    return {"iss": issuer.url, "aud": "hekla", "sub": "mallory", "exp": NOW_S + 300}


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE"])
def test_a_token_without_a_signature_is_refused(issuer: Any, algorithm: str) -> None:
    token = f"{_part({'alg': algorithm, 'kid': 'k1'})}.{_part(_claims(issuer))}."
    with pytest.raises(Refusal):
        ask(door(issuer), token)


def test_a_public_key_is_no_hmac_secret(issuer: Any) -> None:
    """The classic confusion: signed with HS256, the issuer's public key as the secret."""
    issuer.use_rsa("k1")
    public = issuer.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{_part({'alg': 'HS256', 'kid': 'k1'})}.{_part(_claims(issuer))}"
    token = f"{signed}.{_part(hmac.new(public, signed.encode(), hashlib.sha256).digest())}"
    with pytest.raises(Refusal) as refused:
        ask(door(issuer), token)
    assert "alg 'HS256' is not allowed" in refused.value.log_message


def test_a_symmetric_key_in_a_key_set_is_never_used(issuer: Any) -> None:
    secret = {"kty": "oct", "kid": "s", "k": _part(b"x" * 32), "alg": "HS256"}
    assert set(key_set_of({"keys": [secret, *issuer.jwks["keys"]]}).keys) == {"k1"}
    with pytest.raises(ValueError, match="no key to check"):
        key_set_of({"keys": [secret]})


def test_an_algorithm_of_another_kind_of_key_is_refused(issuer: Any) -> None:
    token = issuer.token(NOW_S)
    _, body, signature = token.split(".")
    with pytest.raises(Refusal):
        ask(door(issuer), f"{_part({'alg': 'RS256', 'kid': 'k1'})}.{body}.{signature}")


def test_a_changed_claim_breaks_the_signature(issuer: Any) -> None:
    head, _, signature = issuer.token(NOW_S).split(".")
    with pytest.raises(Refusal):
        ask(door(issuer), f"{head}.{_part(_claims(issuer))}.{signature}")


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS1"])
def test_settings_refuse_unsafe_algorithms(algorithm: str) -> None:
    with pytest.raises(ValueError, match=r"identity\.jwt\[\]\.algorithms"):
        JwtSettings(issuer="https://i", algorithms=(algorithm,))


@pytest.mark.parametrize("text", ["abc", "a.b.c", "....", "e30.e30.e30", "ünicode.a.b", "x" * 20_000])
def test_garbage_is_refused_not_an_error(issuer: Any, text: str) -> None:
    with pytest.raises(Refusal) as refused:
        ask(door(issuer), text)
    assert refused.value.status == 401


def test_a_deeply_nested_token_is_refused_not_an_error(issuer: Any) -> None:
    deep = b"[" * 5000 + b"]" * 5000
    with pytest.raises(Refusal):
        ask(door(issuer), f"{_part({'alg': 'ES256', 'kid': 'k1'})}.{_part(deep)}.{_part(b'x')}")


def test_claims_map_to_tenant_user_priority_and_scopes(issuer: Any, tenant: Make) -> None:
    directory = build_directory([tenant("red", weight=2, priority=1)], [], [])
    keeper = door(
        issuer, directory, tenant_claim="org.name", user_claim="email", priority_claim="https://x.example/prio"
    )
    token = issuer.token(
        NOW_S, org={"name": "red"}, email="a@x", scope="openid hekla:admin", **{"https://x.example/prio": 7}
    )
    caller = ask(keeper, token)
    assert (caller.tenant, caller.user, caller.weight, caller.priority) == ("red", "a@x", 2, 7)
    assert caller.has_scope(ADMIN)


def test_a_claimed_tenant_has_to_exist_even_default(issuer: Any) -> None:
    keeper = door(issuer, tenant_claim="org")
    for name in ("red", "default", "anonymous"):
        with pytest.raises(Refusal) as refused:
            ask(keeper, issuer.token(NOW_S, org=name))
        assert refused.value.status == 403
    assert ask(door(issuer, tenant_claim="org", unknown_tenants=True), issuer.token(NOW_S, org="red")).tenant == "red"


@pytest.mark.parametrize("value", [None, "", 5, ["a"], "x" * 300, "a\nb"])
def test_a_claimed_tenant_that_is_no_name_is_refused(issuer: Any, value: Any) -> None:
    with pytest.raises(Refusal) as refused:
        ask(door(issuer, tenant_claim="org", unknown_tenants=True), issuer.token(NOW_S, org=value))
    assert refused.value.status == 401


def test_a_remembered_token_still_expires_to_the_second(issuer: Any) -> None:
    keeper, token = door(issuer), issuer.token(NOW_S, exp=NOW_S + 1)
    ask(keeper, token)
    ask(keeper, token, NOW_S + 60.9)
    with pytest.raises(Refusal):
        ask(keeper, token, NOW_S + 61)


def test_a_key_the_issuer_withdrew_is_refused_at_once_though_its_tokens_were_remembered(issuer: Any) -> None:
    settings = IdentitySettings(mode="required", jwt=(JwtSettings(issuer=issuer.url),))
    jwks = Jwks(settings, no_page, VirtualClock())
    state = jwks.issuers[issuer.url]
    state.keys = key_set_of(issuer.jwks)
    directory = Directory()
    keeper, token = Doorkeeper(settings, lambda: directory, jwks), issuer.token(NOW_S)
    ask(keeper, token)
    issuer.rotate("k2")
    state.keys, state.version, state.is_reading = key_set_of(issuer.jwks), 1, True
    with pytest.raises(Refusal):
        ask(keeper, token)


def test_remembered_tokens_are_bounded(issuer: Any) -> None:
    settings = IdentitySettings(mode="required", jwt=(JwtSettings(issuer=issuer.url),), token_cache_max=3)
    jwks = Jwks(settings, no_page, VirtualClock())
    jwks.issuers[issuer.url].keys = key_set_of(issuer.jwks)
    directory = Directory()
    keeper = Doorkeeper(settings, lambda: directory, jwks)
    for index in range(10):
        ask(keeper, issuer.token(NOW_S, sub=f"user-{index}"))
    assert keeper.remembered == 3


def test_a_claims_name_may_hold_dots() -> None:
    assert claim_at({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert claim_at({"a": {"b": 2}}, "a.b") == 2
    assert claim_at({"a": "text"}, "a.b") is None


def test_a_token_for_pyjwt_alone_would_verify(issuer: Any) -> None:
    """The tests' own tokens are what another library takes for good."""
    assert (
        jwt.decode(issuer.token(), issuer.private.public_key(), algorithms=["ES256"], audience="hekla")["sub"]
        == "alice"
    )
