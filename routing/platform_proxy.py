"""Forwards the resource API's paths to the platform: answers are streamed, so that a watch stays a watch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from hekla.routing.config import RoutingSettings
from hekla.routing.exchange import JSON_TYPE, Exchange
from hekla.routing.headers import from_platform, to_platform
from hekla.routing.refusal import Refusal
from hekla.routing.upstream import Upstream

PREFIXES = ("/apis/", "/hekla/", "/openapi/")
PATHS = frozenset({"/apis", "/openapi"})
REASONS = {401: "Unauthorized", 403: "Forbidden", 408: "Timeout", 413: "RequestEntityTooLarge"}


def is_platform_path(path: str) -> bool:
    return path.startswith(PREFIXES) or path in PATHS


class PlatformProxy:
    def __init__(
        self, upstream: Upstream, url: Callable[[], str | None], settings: RoutingSettings, token: Callable[[], str]
    ) -> None:
        self._upstream, self._url, self._token = upstream, url, token
        self._limits, self._retry_after_s = settings.limits, settings.retry_after_s

    async def forward(self, exchange: Exchange, left: Callable[[], None]) -> None:
        """`left` is called when the client's body is whole: from then on its leaving ends the request. Raises ClientGone."""
        try:
            await self._forward(exchange, left)
        except Refusal as refusal:
            await self.refuse(exchange, refusal)

    async def refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        """In the resource API's shape. The rest of the request is not read."""
        exchange.error_kind, exchange.error_message = refusal.kind, refusal.log_message
        body = status_body(refusal.status, REASONS.get(refusal.status, "ServiceUnavailable"), refusal.message)
        headers = [JSON_TYPE, *refusal.headers(), (b"connection", b"close")]
        await exchange.answer(refusal.status, body, headers)

    async def _forward(self, exchange: Exchange, left: Callable[[], None]) -> None:
        base = self._url()
        if base is None:
            await self._away(exchange, "the platform has no address yet")
            return
        raw_path = (exchange.scope.get("raw_path") or exchange.path.encode()).decode("latin-1")
        query = exchange.scope.get("query_string", b"").decode("latin-1")
        target = base.rstrip("/") + raw_path + ("?" + query if query else "")
        # Held whole: the client may send a request again whose kept connection turned out closed, and a body that
        # streams through can't be sent twice.
        body = await exchange.read_body(self._limits) if _has_body(exchange) else None
        left()
        try:
            response = await self._upstream.session.request(
                exchange.method,
                URL(target, encoded=True),
                headers=to_platform(exchange.raw_headers, self._token()),
                data=body,
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
        message = f"the platform is away, try again: {reason}"
        body = status_body(503, "ServiceUnavailable", message, {"retryAfterSeconds": self._retry_after_s})
        retry_after = (b"retry-after", str(self._retry_after_s).encode())
        await exchange.answer(503, body, [JSON_TYPE, retry_after])


def status_body(code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> bytes:
    """An error in the resource API's shape."""
    head = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return msgspec.json.encode({**head, "message": message, "reason": reason, "details": details or {}, "code": code})


def _has_body(exchange: Exchange) -> bool:
    return exchange.header(b"content-length") not in (None, b"0") or exchange.header(b"transfer-encoding") is not None
