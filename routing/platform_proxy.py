"""Forwards the resource API's paths to the platform: streamed both ways, so that a watch stays a watch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import aiohttp
import msgspec
from yarl import URL

from hekla.routing.exchange import JSON_TYPE, ClientGone, Exchange
from hekla.routing.headers import from_platform, to_platform
from hekla.routing.upstream import Upstream

PREFIXES = ("/apis/", "/hekla/", "/openapi/")
PATHS = frozenset({"/apis", "/openapi"})


def is_platform_path(path: str) -> bool:
    return path.startswith(PREFIXES) or path in PATHS


class PlatformProxy:
    def __init__(self, upstream: Upstream, url: Callable[[], str | None], retry_after_s: int) -> None:
        self._upstream, self._url, self._retry_after_s = upstream, url, retry_after_s

    async def forward(self, exchange: Exchange, left: Callable[[], None]) -> None:
        """`left` is called when the client's body is whole: from then on its leaving ends the request."""
        base = self._url()
        if base is None:
            await self._away(exchange, "the platform has no address yet")
            return
        raw_path = (exchange.scope.get("raw_path") or exchange.path.encode()).decode("latin-1")
        query = exchange.scope.get("query_string", b"").decode("latin-1")
        target = base.rstrip("/") + raw_path + ("?" + query if query else "")
        has_body = _has_body(exchange)
        if not has_body:
            left()
        try:
            response = await self._upstream.session.request(
                exchange.method,
                URL(target, encoded=True),
                headers=to_platform(exchange.raw_headers),
                data=_body(exchange, left) if has_body else None,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError) as error:
            await self._away(exchange, str(error) or type(error).__name__)
            return
        try:
            await self._relay(exchange, response)
        finally:
            response.close()

    async def _relay(self, exchange: Exchange, response: aiohttp.ClientResponse) -> None:
        await exchange.begin(response.status, from_platform(response.raw_headers))
        try:
            while chunk := await response.content.readany():
                await exchange.write(chunk)
        except (aiohttp.ClientError, OSError) as error:
            exchange.error_kind, exchange.error_message = "proxy", f"the platform was lost: {error}"
            return
        await exchange.finish()

    async def _away(self, exchange: Exchange, reason: str) -> None:
        exchange.error_kind, exchange.error_message = "proxy", reason
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": f"the platform is away, try again: {reason}",
            "reason": "ServiceUnavailable",
            "details": {"retryAfterSeconds": self._retry_after_s},
            "code": 503,
        }
        retry_after = (b"retry-after", str(self._retry_after_s).encode())
        await exchange.answer(503, msgspec.json.encode(status), [JSON_TYPE, retry_after])


def _has_body(exchange: Exchange) -> bool:
    return exchange.header(b"content-length") not in (None, b"0") or exchange.header(b"transfer-encoding") is not None


async def _body(exchange: Exchange, left: Callable[[], None]) -> AsyncIterator[bytes]:
    while True:
        message = await exchange.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        if part := message.get("body", b""):
            yield part
        if not message.get("more_body", False):
            left()
            return
