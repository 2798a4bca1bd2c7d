"""Which session a request belongs to, as its ModelRoute says. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl

from hekla.platform.api.meta import Json

SESSION_CHARS_MAX = 256
"""Longer names are hashed: they are kept by the thousand."""
QUERY_FIELDS_MAX = 64
COOKIE_NAME = "hekla-session"


@dataclass(frozen=True)
class Facts:
    """What of a request may name its session. Claims are those of a token that has been verified."""

    headers: Mapping[str, str]
    """Lower-case names."""
    query: str = ""
    claims: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class SessionCookie:
    name: str
    path: str = "/"
    secure: bool = False

    def header(self, session: str, ttl_s: float) -> str:
        """The value of `Set-Cookie`."""
        secure = "; Secure" if self.secure else ""
        return f"{self.name}={session}; Path={self.path}; Max-Age={ttl_s:.0f}; HttpOnly; SameSite=Lax{secure}"


@dataclass(frozen=True)
class SessionPolicy:
    """A route's `sessionSticky`."""

    sources: tuple[tuple[str, str], ...]
    """Kind and name, asked in this order."""
    ttl_s: float
    cookie: SessionCookie | None = None
    """Set on the answer to a request that names no session."""

    def session_of(self, facts: Facts) -> str:
        """Empty when no source has a value."""
        for kind, name in self.sources:
            if value := READ[kind](facts, name):
                return bounded(value)
        return bounded(_cookie(facts, self.cookie.name)) if self.cookie is not None else ""


def policy_of(sticky: Json | None) -> SessionPolicy | None:
    """Raises ValueError naming the field that makes it unusable."""
    if not sticky:
        return None
    sources = []
    for index, source in enumerate(sticky.get("sources") or ()):
        kind, name = source.get("type"), source.get("name")
        if kind not in READ or not name:
            raise ValueError(f"spec.sessionSticky.sources[{index}]: type is {kind!r}; allowed: {', '.join(READ)}")
        sources.append((kind, name.lower() if kind == "Header" else name))
    cookie = sticky.get("setCookie")
    return SessionPolicy(
        sources=tuple(sources),
        ttl_s=float(sticky.get("ttlSeconds") or 10800),
        cookie=None if cookie is None else _cookie_policy(cookie),
    )


def bounded(session: str) -> str:
    if len(session) <= SESSION_CHARS_MAX:
        return session
    return blake2b(session.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _cookie_policy(cookie: Json) -> SessionCookie:
    return SessionCookie(cookie.get("name") or COOKIE_NAME, cookie.get("path") or "/", bool(cookie.get("secure")))


def _header(facts: Facts, name: str) -> str:
    return facts.headers.get(name, "")


def _query(facts: Facts, name: str) -> str:
    try:
        fields = parse_qsl(facts.query, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:  # too many of them
        return ""
    return next((value for key, value in fields if key == name), "")


def _cookie(facts: Facts, name: str) -> str:
    for part in facts.headers.get("cookie", "").split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value.strip('"')
    return ""


def _claim(facts: Facts, name: str) -> str:
    """A claim inside others is named with dots, as `org.id`, unless a claim has that very name."""
    claims = facts.claims or {}
    value: Any = claims.get(name)
    if value is None and "." in name:
        value = claims
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    return str(value) if isinstance(value, str | int) else ""


READ: Mapping[str, Callable[[Facts, str], str]] = {
    "Header": _header,
    "Query": _query,
    "Cookie": _cookie,
    "JWTClaim": _claim,
}
