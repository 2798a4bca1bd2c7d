"""From an engine's answer to the client: bytes as they come, events whole, and what happens when the engine dies."""

from __future__ import annotations

import aiohttp

from hekla.platform.base.clock import Clock
from hekla.routing.call import Call
from hekla.routing.headers import to_client
from hekla.routing.metrics import RouterMetrics
from hekla.routing.trips import LiveTrip
from hekla.routing.upstream import AttemptFailed, StreamBroken
from hekla.routing.usage import USAGE_PATHS, JsonTail, Usage


class Relay:
    def __init__(self, metrics: RouterMetrics, clock: Clock, *, held_bytes_max: int) -> None:
        """`held_bytes_max`: a plain answer up to this size is held back until it is whole."""
        self._metrics, self._clock, self._held_max = metrics, clock, held_bytes_max

    async def relay(self, call: Call, response: aiohttp.ClientResponse, trip: LiveTrip) -> None:
        """Raises AttemptFailed while the client has nothing, StreamBroken when the engine is lost after that."""
        content_type = response.headers.get("content-type", "")
        if content_type.startswith("text/event-stream"):
            await self._events(call, response, trip)
        elif call.has_begun:
            raise AttemptFailed(call.exchange.backend, f"answered {response.status} without a stream", status=400)
        else:
            await self._whole(call, response)
        call.exchange.upstream_ended_s = self._clock.monotonic()

    async def _first_chunk(self, call: Call, response: aiohttp.ClientResponse) -> bytes:
        """Waits for the body to begin before the client gets headers: until then another engine can step in."""
        try:
            chunk = await response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise AttemptFailed(call.exchange.backend, f"broke off: {error}", unreached=True) from error
        now_s = call.exchange.first_byte_s = self._clock.monotonic()
        if call.verdict is not None:
            call.verdict.answered(now_s)
        call.exchange.trace.event("first_token")
        return chunk

    async def _events(self, call: Call, response: aiohttp.ClientResponse, trip: LiveTrip) -> None:
        exchange, events, read, feed = call.exchange, call.events, response.content.readany, call.events.feed
        chunk = await self._first_chunk(call, response)
        trip.first_token()
        if not call.has_begun:
            headers = to_client(response.raw_headers, exchange.request_id, resized=True)
            await exchange.begin(response.status, headers)
        send = exchange.send
        try:
            while chunk:
                trip.progress(1)  # a chunk is a token or more
                if out := feed(chunk):
                    await send({"type": "http.response.body", "body": out, "more_body": True})
                if events.failed:
                    raise StreamBroken(exchange.backend, events.failed)
                if events.is_over:
                    break
                try:
                    chunk = await read()
                except (aiohttp.ClientError, OSError) as error:
                    if events.is_done:
                        break
                    raise StreamBroken(exchange.backend, str(error) or type(error).__name__) from error
            if not events.is_whole:
                raise StreamBroken(exchange.backend, "its stream stopped before its end")
        finally:
            # Also when the client has left: its tokens were computed all the same.
            exchange.usage = events.usage() or _seen(call, response.status)
        await exchange.finish(events.rest())

    async def _whole(self, call: Call, response: aiohttp.ClientResponse) -> None:
        """An answer up to a bound is held back until it is whole: until then another engine can step in."""
        exchange, tail = call.exchange, JsonTail()
        chunk = await self._held(call, response)
        await exchange.begin(response.status, to_client(response.raw_headers, exchange.request_id, resized=False))
        while chunk and not response.content.is_eof():
            tail.feed(chunk)
            await exchange.write(chunk)
            try:
                chunk = await response.content.readany()
            except (aiohttp.ClientError, OSError) as error:
                # A length or chunked framing left unfinished is how HTTP says that a body is not whole.
                self._note_lost(call, error)
                return
        tail.feed(chunk)
        if response.status < 300:
            exchange.usage = tail.usage()
        await exchange.finish(chunk)

    async def _held(self, call: Call, response: aiohttp.ClientResponse) -> bytes:
        """All of the answer, or its beginning when it is larger than what is held. Raises AttemptFailed."""
        parts = [await self._first_chunk(call, response)]
        held, told = len(parts[0]), response.content_length
        if told is not None and told > self._held_max:
            return parts[0]
        try:
            while (
                held <= self._held_max and not response.content.is_eof() and (chunk := await response.content.readany())
            ):
                parts.append(chunk)
                held += len(chunk)
        except (aiohttp.ClientError, OSError) as error:
            raise AttemptFailed(call.exchange.backend, f"broke off: {error}", unreached=True) from error
        return b"".join(parts)

    def _note_lost(self, call: Call, error: Exception) -> None:
        exchange = call.exchange
        if call.verdict is not None:
            call.verdict.failed(self._clock.monotonic())
        note_lost(call, self._metrics, f"{exchange.backend} was lost: {error}")


def note_lost(call: Call, metrics: RouterMetrics, reason: str) -> None:
    """The client's answer is cut off."""
    call.exchange.error_kind, call.exchange.error_message = "proxy", reason
    metrics.child(metrics.lost_streams, call.view.model, call.server.name).inc()


def _seen(call: Call, status: int) -> Usage | None:
    """Of a stream that ended before it told its usage: the prompt as estimated, a token for each event seen.

    None where events are not tokens: on other paths, and in an engine's error.
    """
    if status >= 300 or call.exchange.path not in USAGE_PATHS or not call.events.events:
        return None
    return Usage(call.exchange.estimated_tokens, call.events.events)
