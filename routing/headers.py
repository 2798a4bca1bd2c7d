"""Which headers cross the ingress. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hekla.platform.api.hiding import REVEAL_HEADER

RawHeaders = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"trailers", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
"""RFC 9110 §7.6.1: for one connection only."""

CREDENTIALS = frozenset({b"authorization", b"cookie", b"x-api-key", b"api-key"})
"""The ingress checks them; an engine has no use for them and its log should not hold them."""

_TO_ENGINE_DROPPED = HOP_BY_HOP | CREDENTIALS | {
    b"host", b"content-length", b"content-type", b"x-request-id", b"expect",
    b"accept-encoding",  # token counts are read from the answer: it must not be compressed
}  # fmt: skip
_TO_CLIENT_DROPPED = HOP_BY_HOP | {b"server", b"date", b"x-request-id", b"set-cookie"}

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


def to_engine(headers: Iterable[tuple[bytes, bytes]], request_id: str) -> list[tuple[str, str]]:
    named = list(headers)
    dropped = _with_named(_TO_ENGINE_DROPPED, named)
    kept = [(k.decode("latin-1"), _text(v)) for k, v in named if k.lower() not in dropped]
    return [*kept, ("content-type", "application/json"), ("x-request-id", request_id)]


def to_client(headers: Iterable[tuple[bytes, bytes]], request_id: str, *, resized: bool) -> RawHeaders:
    """`resized`: the body's length may change on the way, so the engine's content-length does not hold."""
    named = [(name.lower(), value) for name, value in headers]
    dropped = _with_named(_TO_CLIENT_DROPPED, named)
    kept = [(k, v) for k, v in named if k not in dropped and not (resized and k == b"content-length")]
    return [*kept, (b"x-request-id", request_id.encode("latin-1"))]


def to_platform(headers: Iterable[tuple[bytes, bytes]], token: str) -> list[tuple[str, str]]:
    """The ingress has checked the client's credential; the resource API believes the ingress by its `token`.

    Hidden values are the ingress's alone to ask for.
    """
    named = [(name.lower(), value) for name, value in headers]
    dropped = _with_named(HOP_BY_HOP | CREDENTIALS | {b"host", REVEAL_HEADER.encode()}, named)
    kept = [(k.decode("latin-1"), _text(v)) for k, v in named if k not in dropped]
    return [*kept, ("authorization", f"Bearer {token}")] if token else kept


def from_platform(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    named = [(name.lower(), value) for name, value in headers]
    dropped = _with_named(HOP_BY_HOP | {b"date", b"server"}, named)
    return [(k, v) for k, v in named if k not in dropped]


def _text(value: bytes) -> str:
    """aiohttp writes headers in UTF-8: read so, a value in it leaves as the bytes that came."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _with_named(dropped: frozenset[bytes], headers: list[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """`Connection` may name further headers that are for one connection only."""
    named: set[bytes] = set()
    for name, value in headers:
        if name.lower() == b"connection":
            named.update(part.strip().lower() for part in value.split(b","))
    return dropped | named if named - HOP_BY_HOP else dropped


def safe_request_id(value: bytes | None) -> str | None:
    """The client's request id when it is short and plain enough to be logged and sent on."""
    if value is None or not _REQUEST_ID.fullmatch(value):
        return None
    return value.decode("ascii")
