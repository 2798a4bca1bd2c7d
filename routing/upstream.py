"""Connections to engines: one pool, bytes as they come, failures named."""

from __future__ import annotations

import asyncio
from functools import lru_cache

import aiohttp
from yarl import URL

from hekla.platform.base.errors import Unavailable
from hekla.routing.config import UpstreamSettings


class AttemptFailed(Exception):
    """An engine did not answer, or answered that it can't. Nothing has reached the client: another may be tried.

    `unreached`: the connection failed or broke before the answer's first byte, which says nothing about the request,
    so that even the same engine may be tried again. `status` and `detail` are its answer's, when there was one.
    """

    def __init__(self, engine: str, reason: str, *, unreached: bool = False, status: int = 0) -> None:
        super().__init__(f"{engine}: {reason}")
        self.engine, self.reason, self.unreached, self.status = engine, reason, unreached, status


class StreamBroken(Exception):
    """An engine was lost after events of its stream had reached the client."""

    def __init__(self, engine: str, reason: str) -> None:
        super().__init__(f"{engine}: {reason}")
        self.engine, self.reason = engine, reason


class Upstream:
    """A pool of HTTP connections. `start` inside the event loop, `stop` at the end."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        settings = self._settings
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=settings.connections_max, limit_per_host=0, keepalive_timeout=settings.keepalive_s
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_s),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            read_bufsize=2**18,
        )

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None, "Upstream.start was not awaited"
        return self._session

    async def page(self, url: str, *, timeout_s: float, bytes_max: int) -> bytes:
        """The body at `url`. Raises Unavailable when it does not come whole, with 200, in time and within the size."""
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self.session.get(url_of(url), timeout=timeout, allow_redirects=False) as response:
                if response.status != 200:
                    raise Unavailable(f"{url}: answered {response.status}")
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > bytes_max:
                        raise Unavailable(f"{url}: larger than {bytes_max} bytes")
                return bytes(body)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unavailable(f"{url}: {error or type(error).__name__}") from error

    async def post(
        self, engine: str, url: str, *, headers: list[tuple[str, str]], body: bytes, header_timeout_s: float | None
    ) -> aiohttp.ClientResponse:
        """The answer once its headers are there; the caller closes it. Raises AttemptFailed."""
        try:
            asked = self.session.post(url_of(url), headers=headers, data=body, allow_redirects=False)
            if header_timeout_s is None:
                return await asked
            async with asyncio.timeout(header_timeout_s):
                return await asked
        except TimeoutError as error:
            unreached = isinstance(error, aiohttp.ClientError)  # aiohttp's own: the connect timeout
            reason = "no connection in time" if unreached else f"no response headers within {header_timeout_s} s"
            raise AttemptFailed(engine, reason, unreached=unreached) from error
        except (aiohttp.ClientError, OSError) as error:
            raise AttemptFailed(engine, str(error) or type(error).__name__, unreached=True) from error


def url_of(text: str) -> URL:
    """Parsing a URL costs more than all else per request, and there are only engines times paths of them."""
    return _kept_url(text) if "?" not in text else URL(text, encoded=True)  # queries are the clients': any number


@lru_cache(maxsize=4096)
def _kept_url(text: str) -> URL:
    return URL(text, encoded=True)
