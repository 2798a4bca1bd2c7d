"""The target that is an external provider: asks it, in its own wire format or through a translation."""

from __future__ import annotations

import asyncio

import aiohttp

from hekla.platform.base.clock import Clock
from hekla.platform.base.ids import Ids
from hekla.routing.body import Body
from hekla.routing.config import RoutingSettings
from hekla.routing.exchange import Exchange
from hekla.routing.external.book import ProviderBook
from hekla.routing.external.health import ProviderHealth
from hekla.routing.external.provider import Provider
from hekla.routing.external.refusals import (
    path_unsupported,
    provider_ejected,
    provider_error,
    provider_not_found,
    provider_not_ready,
    redirected,
    transport_failed,
)
from hekla.routing.external.relaying import ProviderRelay
from hekla.routing.external.wire import NATIVE_PATHS, TRANSLATED_PATHS, headers_back, headers_for, url_for
from hekla.routing.metrics import RouterMetrics, backend_labels
from hekla.routing.refusal import Refusal
from hekla.routing.table import Match
from hekla.routing.traffic.deadlines import IdleWatch, deadlines_of
from hekla.routing.traffic.retries import RetryBudgets, backoff_s
from hekla.routing.translation.exchange import Translation
from hekla.routing.upstream import Upstream, url_of
from hekla.routing.view import LazyView

FAILED_STATUSES = frozenset({401, 402, 429, 500, 502, 503, 504, 529})
"""Of the provider rather than the request: another target may do better. 401 and 402 are about hekla's credential there."""


class ProviderTarget:
    """A `TargetServer`."""

    def __init__(
        self, settings: RoutingSettings, book: ProviderBook, upstream: Upstream, translation: Translation, *,
        metrics: RouterMetrics, clock: Clock, ids: Ids,
    ) -> None:  # fmt: skip
        self._settings, self._book, self._upstream, self._translation = settings, book, upstream, translation
        self._metrics, self._clock, self._ids = metrics, clock, ids
        self.health = ProviderHealth(settings.traffic.ejection)
        self._budgets = RetryBudgets(settings.traffic.retries)
        self._relay = ProviderRelay(clock, event_bytes_max=settings.limits.event_bytes_max)

    async def serve(self, exchange: Exchange, view: LazyView) -> None:
        match = exchange.match
        assert match is not None, "a request is matched before it is served"
        provider = self._provider(match)
        native, translated = NATIVE_PATHS[provider.wire], TRANSLATED_PATHS[provider.wire]
        if exchange.path not in native and exchange.path not in translated:
            raise path_unsupported(provider.wire, exchange.path, sorted({*native, *translated}))
        if match.later_targets and self.health.is_ejected(provider.key, self._clock.monotonic()):
            raise provider_ejected(provider.key, self._settings.retry_after_s)
        exchange.upstream_model = provider.model or view.model
        try:
            if exchange.path in native:
                await self._ask(exchange, view.asked, provider)
            else:
                async with self._translation.into(exchange, view.asked) as body:
                    await self._ask(exchange, body, provider)
        except Refusal:
            exchange.upstream_model = ""  # another target may be next
            raise

    def forget_unknown(self) -> None:
        """Drops what is remembered of providers that are gone."""
        keys = {"/".join(name) for name in self._book.names()}
        self.health.keep_only(frozenset(keys))
        self._budgets.forget(keys)

    def _provider(self, match: Match) -> Provider:
        name = match.route.server_key(match.target)
        key, found = "/".join(name), self._book.get(name)
        if found is None and self._book.is_read:
            raise provider_not_found(key)
        if found is None or found.provider is None:
            raise provider_not_ready(key, found.ready if found else None, self._settings.retry_after_s)
        return found.provider

    async def _ask(self, exchange: Exchange, asked: Body, provider: Provider) -> None:
        body = asked.edited({"model": provider.model}) if provider.model else asked
        active = self._metrics.child(self._metrics.upstream, "", *backend_labels(exchange))
        breaker, outcome = self.health.begin(provider.key), None
        active.inc()
        try:
            response = await self._response(exchange, provider, body.raw)
            outcome = exchange.upstream_status < 500 and exchange.upstream_status not in FAILED_STATUSES - {429}
            async with response:
                outcome = await self._pass_on(exchange, provider, response) and outcome
        except Refusal as refusal:
            outcome = refusal.status == 429
            raise
        finally:
            active.dec()
            self.health.end(breaker, self._clock.monotonic(), outcome)

    async def _pass_on(self, exchange: Exchange, provider: Provider, response: aiohttp.ClientResponse) -> bool:
        status = response.status
        if 300 <= status < 400:
            raise redirected(provider.key, status)
        with IdleWatch(response.content, deadlines_of(None, self._settings.traffic.timeouts, None, 0).idle_s):
            if status in FAILED_STATUSES and (held := await self._error(response)) is not None:
                headers = headers_back(list(response.raw_headers), exchange.request_id, resized=True)
                raise provider_error(provider.key, status, headers, held)
            return await self._relay.relay(exchange, response, provider.key)

    async def _error(self, response: aiohttp.ClientResponse) -> bytes | None:
        """A failure's whole body; None when it is too large to be held, and nothing has been read."""
        limit, length = self._settings.external.error_body_bytes_max, response.content_length
        if length is not None and length > limit:
            return None
        body = bytearray()
        try:
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > limit:
                    break
        except (aiohttp.ClientError, OSError):
            pass  # what came of it says enough
        return bytes(body[:limit])

    async def _response(self, exchange: Exchange, provider: Provider, body: bytes) -> aiohttp.ClientResponse:
        """The answer once its headers are there. Only a connection that never came about is tried again."""
        settings = self._settings.external
        budget = self._budgets.of(provider.key, self._clock.monotonic())
        budget.request()
        tries = 0
        while True:
            tries += 1
            exchange.upstream_attempts += 1
            exchange.upstream_started_s = self._clock.monotonic()
            try:
                response = await self._post(exchange, provider, body)
                exchange.upstream_status = response.status
                return response
            except aiohttp.ClientConnectorCertificateError as error:
                raise transport_failed(provider.key, _told(error), is_late=False) from error
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                if tries > settings.connect_attempts or not budget.take(self._clock.monotonic()):
                    raise transport_failed(
                        provider.key, _told(error), is_late=isinstance(error, TimeoutError)
                    ) from error
                longest_s = self._settings.traffic.retries.interval_max_s
                await self._clock.sleep(backoff_s(settings.connect_interval_s, tries, self._ids.random(), longest_s))
            except (aiohttp.ClientError, OSError) as error:
                raise transport_failed(provider.key, _told(error), is_late=isinstance(error, TimeoutError)) from error

    async def _post(self, exchange: Exchange, provider: Provider, body: bytes) -> aiohttp.ClientResponse:
        url = url_for(provider, exchange.path, exchange.scope.get("query_string", b""))
        headers = headers_for(provider, exchange.raw_headers, exchange.request_id)
        async with asyncio.timeout(self._settings.external.headers_timeout_s or None):
            return await self._upstream.session.post(
                url_of(url), headers=headers, data=body, allow_redirects=False, ssl=provider.verifies_tls
            )


def _told(error: Exception) -> str:
    return str(error) or ("no response headers in time" if isinstance(error, TimeoutError) else type(error).__name__)
