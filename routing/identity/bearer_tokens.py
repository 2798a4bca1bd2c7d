"""JWTs: is a token signed by a key of its issuer, for us, and good now? Pure.

PyJWT checks the signature and the types of claims; times are checked here, against a clock that is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from hekla.routing.identity.settings import JwtSettings

TRUSTED_TYPES = frozenset({"RSA", "EC", "OKP"})
"""Key types of public keys. An `oct` key in a key set is a published secret: never used."""


class BadToken(Exception):
    """Its message says why, for the log."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a token says of itself, not believed yet."""

    issuer: str
    key_id: str
    algorithm: str


@dataclass(frozen=True)
class KeySet:
    """An issuer's public keys."""

    keys: Mapping[str, jwt.PyJWK]
    """By key id; a key without one has the empty id."""

    def find(self, claimed: Claimed) -> jwt.PyJWK | None:
        """The key a token names. A token that names none gets the only key there is, when there is only one."""
        if claimed.key_id:
            return self.keys.get(claimed.key_id)
        return next(iter(self.keys.values())) if len(self.keys) == 1 else None


def key_set_of(document: Any) -> KeySet:
    """The keys of a JWKS document that sign; others are passed over. Raises ValueError when it is no key set."""
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError("no JWK set: it has no list `keys`")  # noqa: TRY004 -- what was read is wrong, not our call
    found: dict[str, jwt.PyJWK] = {}
    for item in document["keys"]:
        if not isinstance(item, dict) or item.get("kty") not in TRUSTED_TYPES or item.get("use", "sig") != "sig":
            continue
        try:
            found.setdefault(str(item.get("kid") or ""), jwt.PyJWK(item))
        except Exception:  # noqa: BLE001, S112 -- whatever a library says of a strange key, the others may be good
            continue
    if not found:
        raise ValueError("the JWK set has no key to check signatures with")
    return KeySet(found)


def claimed_by(token: str) -> Claimed:
    """Raises BadToken when it is no JWT."""
    try:
        head = jwt.get_unverified_header(token)
        body = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise BadToken(f"no JWT: {error}") from error
    issuer = body.get("iss")
    if not isinstance(issuer, str):
        raise BadToken("iss is missing or no text")
    return Claimed(issuer, str(head.get("kid") or ""), str(head.get("alg") or ""))


def verified(token: str, key: jwt.PyJWK, settings: JwtSettings, *, now_s: float, skew_s: float) -> dict[str, Any]:
    """The claims. Raises BadToken.

    Signature by an algorithm that is allowed and is the key's own; `iss` exact; `aud` any of the configured; `exp` and
    `sub` required; `exp`, `nbf` and `iat` within `skew_s` of `now_s` (Unix time).
    """
    options: Any = {
        "require": ["exp", "iss", "sub"], "verify_exp": False, "verify_nbf": False, "verify_iat": False,
        "verify_aud": bool(settings.audiences),
    }  # fmt: skip
    try:
        claims: dict[str, Any] = jwt.decode(
            token, key, algorithms=list(settings.algorithms), issuer=settings.issuer,
            audience=list(settings.audiences) or None, options=options,
        )  # fmt: skip
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise BadToken(f"{type(error).__name__}: {error}") from error
    _check_times(claims, now_s, skew_s)
    if not isinstance(claims["sub"], str) or not claims["sub"]:
        raise BadToken("sub is empty or no text")
    return claims


def _check_times(claims: Mapping[str, Any], now_s: float, skew_s: float) -> None:
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if claims.get(name) is not None}
    for name, value in times.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadToken(f"{name} is {value!r}, no number")
    if not now_s < times["exp"] + skew_s:
        raise BadToken(f"expired {now_s - times['exp']:.0f} s ago")
    for name in ("nbf", "iat"):
        if name in times and not times[name] <= now_s + skew_s:
            raise BadToken(f"{name} lies {times[name] - now_s:.0f} s in the future")


def claim_at(claims: Mapping[str, Any], path: str) -> Any:
    """The value at a claim's name, or at names joined by dots; None when there is none.

    The whole text is tried as a name first: some issuers name claims by URLs.
    """
    if path in claims:
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
