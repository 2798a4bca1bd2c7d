"""Where in a request the credential is. Pure."""

from __future__ import annotations

from collections.abc import Iterable

HEADERS = (b"authorization", b"x-api-key", b"api-key")
"""In this order: the usual one, the Anthropic libraries', Azure's."""
_BEARER = b"bearer "


def credential_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The API key or token a request carries; None when it carries none, empty when it is not a bearer's.

    The first of `HEADERS` that is there decides; a header sent twice is refused, as two readers could disagree on it.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in HEADERS:
            if found.get(name, value) != value:
                return b""
            found[name] = value
    for name in HEADERS:
        if name in found:
            return _unwrapped(found[name].strip()) if name == b"authorization" else found[name].strip()
    return None


def _unwrapped(value: bytes) -> bytes:
    return value[len(_BEARER) :].strip() if value[: len(_BEARER)].lower() == _BEARER else b""
