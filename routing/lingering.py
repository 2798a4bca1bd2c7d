"""Closing a connection whose request has been answered before it was read (RFC 9112, 9.6).

A socket that is closed while unread bytes wait in it is reset, and a reset makes the client's system throw away the answer
the client has not read yet: of a body that is too large it would see a broken connection instead of the 413. So what
still comes is read and dropped for a while, within bounds, and only then the connection is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

DROPPED_BYTES_MAX = 128 * 2**20
"""Four times the largest body taken by default: clients that did not look at a limit first are seldom further above it."""
SILENCE_S = 2.0
"""A client that sends nothing for so long waits for the answer, which it has."""
LINGER_S = 30.0
"""In all; 100 MB at 27 Mbit/s."""


Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


async def drop_rest(receive: Receive, *, silence_s: float = SILENCE_S, linger_s: float = LINGER_S) -> int:
    """Reads a request's body to its end, or to the first of the bounds. Returns how many bytes were dropped."""
    dropped = 0
    try:
        async with asyncio.timeout(linger_s):
            while dropped < DROPPED_BYTES_MAX:
                async with asyncio.timeout(silence_s):
                    message = await receive()
                dropped += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    break
    except TimeoutError:
        pass
    return dropped
