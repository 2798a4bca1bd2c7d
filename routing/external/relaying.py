"""A provider's answer on its way to the client: bytes as they come, usage read in passing."""

from __future__ import annotations

import aiohttp

from hekla.platform.base.clock import Clock
from hekla.routing.exchange import Exchange
from hekla.routing.external.refusals import transport_failed
from hekla.routing.external.wire import headers_back
from hekla.routing.refusal import stream_error
from hekla.routing.usage import EventRelay, JsonTail, Usage


class ProviderRelay:
    def __init__(self, clock: Clock, *, event_bytes_max: int) -> None:
        self._clock, self._event_bytes_max = clock, event_bytes_max

    async def relay(self, exchange: Exchange, response: aiohttp.ClientResponse, key: str) -> bool:
        """True when the answer came whole. Raises Refusal when nothing of it came."""
        try:
            chunk = await response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise transport_failed(key, f"it broke off: {error}", is_late=isinstance(error, TimeoutError)) from error
        exchange.first_byte_s = self._clock.monotonic()
        is_stream = response.headers.get("content-type", "").startswith("text/event-stream")
        try:
            return await (self._events if is_stream else self._whole)(exchange, response, chunk, key)
        finally:
            exchange.upstream_ended_s = self._clock.monotonic()

    async def _events(self, exchange: Exchange, response: aiohttp.ClientResponse, chunk: bytes, key: str) -> bool:
        events = EventRelay(hide_usage=False, held_bytes_max=self._event_bytes_max)
        await exchange.begin(
            response.status, headers_back(list(response.raw_headers), exchange.request_id, resized=True)
        )
        try:
            while chunk:
                if out := events.feed(chunk):
                    await exchange.write(out)
                chunk, failure = await _next(response)
                if failure:
                    _note(exchange, key, failure)
                    await exchange.finish(stream_error(exchange.path, exchange.error_message, "upstream_transport"))
                    return False
        finally:
            # Also when the client has left: the provider bills what it has generated.
            exchange.usage = events.usage() or _seen(exchange, response.status, events)
        await exchange.finish(events.rest())
        return True

    async def _whole(self, exchange: Exchange, response: aiohttp.ClientResponse, chunk: bytes, key: str) -> bool:
        tail = JsonTail()
        headers = headers_back(list(response.raw_headers), exchange.request_id, resized=False)
        await exchange.begin(response.status, headers)
        while chunk and not response.content.is_eof():
            tail.feed(chunk)
            await exchange.write(chunk)
            chunk, failure = await _next(response)
            if failure:
                # A length or chunked framing left unfinished is how HTTP says that a body is not whole.
                _note(exchange, key, failure)
                return False
        tail.feed(chunk)
        if response.status < 300:
            exchange.usage = tail.usage()
        await exchange.finish(chunk)
        return True


async def _next(response: aiohttp.ClientResponse) -> tuple[bytes, str]:
    """The next bytes, or why there are no more."""
    try:
        return await response.content.readany(), ""
    except (aiohttp.ClientError, OSError) as error:
        return b"", str(error) or type(error).__name__


def _note(exchange: Exchange, key: str, reason: str) -> None:
    exchange.error_kind = "upstream_transport"
    exchange.error_message = f"the external provider {key!r} was lost: {reason}"


def _seen(exchange: Exchange, status: int, events: EventRelay) -> Usage | None:
    """Of a stream that told no usage (OpenAI's does only when asked): the prompt as estimated, a token for each event."""
    return Usage(exchange.estimated_tokens, events.events) if status < 300 and events.events else None
