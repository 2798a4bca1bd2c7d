"""Finds out who calls: API keys by their digest, tokens by their issuer's signature. Pure; what it needs is handed in.

A known API key costs one SHA-256 and one constant-time comparison, so nothing about keys is cached and a revoked one is
refused with the directory it left. Verified tokens are remembered by their own digest, for a bounded time.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any

from hekla.routing.identity import refusals
from hekla.routing.identity.api_keys import id_of, is_key_of
from hekla.routing.identity.bearer_tokens import BadToken, KeySet, claim_at, claimed_by, verified
from hekla.routing.identity.credentials import credential_of
from hekla.routing.identity.directory import ANONYMOUS, Directory, joined, unlimited
from hekla.routing.identity.interface import ADMIN, INFERENCE, METRICS, NOBODY, Caller
from hekla.routing.identity.jwks import Jwks
from hekla.routing.identity.settings import IdentitySettings, JwtSettings

CLAIM_CHARS_MAX = 253
"""Longest tenant or user taken from a token: both become labels of logs and keys of tables."""
TOKEN_SCOPES = {f"hekla:{scope}": scope for scope in (INFERENCE, METRICS, ADMIN)}


class OpenDoor:
    """The authenticator while identity is off."""

    def identify(self, headers: Iterable[tuple[bytes, bytes]], now_s: float) -> Caller:
        return NOBODY


class Doorkeeper:
    """The authenticator while identity is `optional` or `required`. `directory` is None until it has been read."""

    def __init__(
        self, settings: IdentitySettings, directory: Callable[[], Directory | None], jwks: Jwks, *, retry_after_s: int = 1
    ) -> None:  # fmt: skip
        self._settings, self._directory, self._jwks = settings, directory, jwks
        self._issuers = {item.issuer: item for item in settings.jwt}
        self._retry_after_s = retry_after_s
        self._tokens: OrderedDict[bytes, Caller] = OrderedDict()
        self._seen: tuple[Directory | None, int] = (None, 0)

    def identify(self, headers: Iterable[tuple[bytes, bytes]], now_s: float) -> Caller:
        directory = self._directory()
        if directory is None:
            raise refusals.not_read_yet("the keys have", self._retry_after_s)
        credential = credential_of(headers)
        if credential is None:
            return self._anonymous(directory)
        if not credential or len(credential) > self._settings.token_bytes_max:
            raise refusals.bad_credential(
                f"no bearer's credential, or longer than {self._settings.token_bytes_max} bytes"
            )
        key_id = id_of(credential)
        if key_id is not None:
            return _by_key(directory, key_id, credential, now_s)
        return self._by_token(directory, credential, now_s)

    @property
    def remembered(self) -> int:
        """Tokens held."""
        return len(self._tokens)

    def _anonymous(self, directory: Directory) -> Caller:
        if self._settings.mode == "required":
            raise refusals.no_credential()
        tenant = directory.tenant(ANONYMOUS)
        if isinstance(tenant, str):
            raise refusals.no_credential()
        return joined(tenant, Caller(is_anonymous=True))

    def _by_token(self, directory: Directory, credential: bytes, now_s: float) -> Caller:
        if not self._issuers:
            raise refusals.bad_credential("no API key's form, and no issuer of tokens is configured")
        seen = (directory, self._jwks.version)
        if seen[0] is not self._seen[0] or seen[1] != self._seen[1]:
            self._tokens.clear()
            self._seen = seen
        digest = hashlib.sha256(credential).digest()
        caller = self._tokens.get(digest)
        if caller is None or now_s >= caller.expires_s:
            caller = self._judge(directory, credential, now_s)
            self._tokens[digest] = caller
            if len(self._tokens) > self._settings.token_cache_max:
                self._tokens.popitem(last=False)
        return caller

    def _judge(self, directory: Directory, credential: bytes, now_s: float) -> Caller:
        """The caller a token names; `expires_s` is how long it may be remembered."""
        try:
            token = credential.decode("ascii")
            claimed = claimed_by(token)
            issuer = self._issuers.get(claimed.issuer)
            if issuer is None:
                raise BadToken(f"iss {claimed.issuer[:CLAIM_CHARS_MAX]!r} is none of the configured issuers")
            if claimed.algorithm not in issuer.algorithms:
                raise BadToken(f"alg {claimed.algorithm[:16]!r} is not allowed")
            key = self._keys(issuer).find(claimed)
            if key is None:
                if self._jwks.issuers[issuer.issuer].miss():
                    raise refusals.not_read_yet("a new signing key of your token's issuer has", self._retry_after_s)
                raise BadToken(f"kid {claimed.key_id[:64]!r} is no key of {issuer.issuer}")
            claims = verified(token, key, issuer, now_s=now_s, skew_s=self._settings.clock_skew_s)
            own, tenant_name, priority = _caller_of(claims, issuer, self._settings, now_s)
        except (BadToken, UnicodeDecodeError) as error:
            raise refusals.bad_credential(str(error)) from error
        # What a token claims is the issuer's users' to choose: a tenant of that name has to exist, `default` too.
        tenant = directory.tenant(tenant_name, needs_object=bool(issuer.tenant_claim))
        if self._settings.unknown_tenants and tenant_name not in directory.tenants:
            tenant = unlimited(tenant_name)
        if isinstance(tenant, str):
            raise refusals.tenant_refused(tenant)
        return joined(tenant, own, priority)

    def _keys(self, issuer: JwtSettings) -> KeySet:
        keys = self._jwks.issuers[issuer.issuer].keys
        if keys is None:
            raise refusals.not_read_yet("the keys of your token's issuer have", self._retry_after_s)
        return keys


def _by_key(directory: Directory, key_id: str, credential: bytes, now_s: float) -> Caller:
    key = directory.keys.get(key_id)
    # A digest is compared for an unknown id too: how long the answer takes must not tell which ids exist.
    is_genuine = is_key_of(credential, key.digest if key is not None else "sha256:" + "0" * 64)
    if key is None or not is_genuine:
        raise refusals.bad_credential(f"key {key_id}: {'another secret' if key else 'unknown'}")
    if key.revoked or now_s >= key.expires_s:
        raise refusals.bad_credential(f"key {key_id}: {'revoked' if key.revoked else 'expired'}")
    if key.refused:
        raise refusals.tenant_refused(f"key {key_id}: {key.refused}")
    return key.caller


def _caller_of(
    claims: Mapping[str, Any], issuer: JwtSettings, settings: IdentitySettings, now_s: float
) -> tuple[Caller, str, int | None]:
    """The caller but for its tenant's part, the tenant's name, and the priority if the token has one. Raises BadToken."""
    user = _text(claims, issuer.user_claim)
    tenant = _text(claims, issuer.tenant_claim) if issuer.tenant_claim else issuer.tenant
    expires_s = float(claims.get("exp", inf)) + settings.clock_skew_s
    own = Caller(
        user=user, scopes=_scopes(claim_at(claims, issuer.scope_claim)), claims=claims,
        expires_s=min(expires_s, now_s + settings.token_cache_s),
    )  # fmt: skip
    return own, tenant, _priority(claims, issuer)


def _text(claims: Mapping[str, Any], path: str) -> str:
    value = claim_at(claims, path)
    if not isinstance(value, str) or not value or len(value) > CLAIM_CHARS_MAX or not value.isprintable():
        raise BadToken(f"the claim {path!r} is no printable text of 1 to {CLAIM_CHARS_MAX} characters")
    return value


def _priority(claims: Mapping[str, Any], issuer: JwtSettings) -> int | None:
    value = claim_at(claims, issuer.priority_claim) if issuer.priority_claim else None
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or abs(value) > 1000):
        raise BadToken(f"the claim {issuer.priority_claim!r} is no whole number of -1000 to 1000")
    return value


def _scopes(value: Any) -> frozenset[str]:
    """A token that names none of hekla's scopes may use the model API."""
    words = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    found = frozenset(TOKEN_SCOPES[word] for word in words if isinstance(word, str) and word in TOKEN_SCOPES)
    return found or frozenset({INFERENCE})
