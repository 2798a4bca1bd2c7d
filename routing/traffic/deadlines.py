"""How long a request and an engine may take. Pure but for `IdleWatch`, which needs the event loop's timer."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

import aiohttp

from hekla.platform.api.values import parse_duration_s
from hekla.routing.backend import ModelServer
from hekla.routing.refusal import Refusal
from hekla.routing.traffic.settings import TimeoutSettings

TIMEOUT_HEADER = b"x-request-timeout"
"""Seconds, or a duration such as `1m30s`, that the client is willing to wait for the whole answer."""


class EngineSilent(TimeoutError):
    """An engine sent its headers and then nothing for too long. An OSError, as a broken connection is."""


@dataclass(frozen=True)
class Deadlines:
    """Those of one request; `inf` where there is none."""

    headers_s: float | None
    """Longest wait for an engine's response headers; None: none."""
    prefill_s: float | None
    """The same for a prefill engine's answer."""
    idle_s: float
    """Longest silence of an engine whose headers have come."""
    end_s: float
    """Monotonic time at which the answer must have ended."""

    def left_s(self, now_s: float) -> float:
        return self.end_s - now_s


def deadlines_of(
    server: ModelServer | None, settings: TimeoutSettings, asked_s: float | None, started_s: float
) -> Deadlines:
    """`asked_s` is the client's own limit: it lowers the total and never raises it. Without a server, the ingress's hold."""
    total_s = server.total_s if server and server.total_s is not None else settings.total_s
    limits = [limit for limit in (total_s, asked_s) if limit]
    idle_s = server.idle_s if server and server.idle_s is not None else settings.idle_s
    return Deadlines(
        headers_s=server.timeout_s if server else None,
        prefill_s=settings.prefill_s or (server.timeout_s if server else None),
        idle_s=idle_s or math.inf,
        end_s=started_s + min(limits) if limits else math.inf,
    )


def asked_timeout_s(value: bytes | None) -> float | None:
    """The client's `x-request-timeout` in seconds, None without one. Raises Refusal 400."""
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    try:
        seconds = float(text) if text[-1:].isdigit() and text.isascii() else parse_duration_s(text)
    except ValueError:
        seconds = math.nan
    if math.isfinite(seconds) and seconds > 0:
        return seconds
    message = f"x-request-timeout is {text[:64]!r}; allowed: seconds above 0, or a duration such as 500ms or 1m30s"
    raise Refusal(400, message, kind="request_parsing", code="invalid_timeout", param="x-request-timeout")


class IdleWatch:
    """Fails an engine's answer when its reader has waited too long for more; a context manager.

    One timer for the whole answer looks now and then whether bytes came: nothing is done per chunk, of which a replica
    relays tens of thousands a second. So a silence ends between one and one and a quarter times `idle_s`. A client that does
    not read is not the engine's fault: while nobody waits for the engine, its silence does not count.
    """

    LOOKS = 4

    def __init__(self, content: aiohttp.StreamReader, idle_s: float) -> None:
        self._content, self._idle_s = content, idle_s
        self._seen_bytes = content.total_bytes
        self._silent_looks = 0
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        if math.isfinite(self._idle_s):
            self._again()

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._idle_s / self.LOOKS, self._look)

    def _look(self) -> None:
        if self._content.total_bytes != self._seen_bytes or not is_awaited(self._content):
            self._seen_bytes, self._silent_looks = self._content.total_bytes, 0
        else:
            self._silent_looks += 1
        if self._silent_looks >= self.LOOKS:
            self._content.set_exception(EngineSilent(f"it sent nothing for {self._idle_s:g} s"))
        else:
            self._again()


def is_awaited(content: aiohttp.StreamReader) -> bool:
    """Whether someone waits for more of an answer now. Asking the reader for nothing is how it tells."""
    if content.is_eof() or content.exception() is not None:
        return False
    try:
        content.read_nowait(0)
    except RuntimeError:
        return True
    return False
