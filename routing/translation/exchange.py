"""An exchange whose client speaks one wire format while its target speaks the other.

While a target serves it, the exchange has the other format's path, and what is sent to the client goes through a translator:
the target knows nothing of it, so that engines and external providers, with their tries and metrics, serve it as they are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from hekla.platform.base.clock import Clock
from hekla.routing.body import Body, MalformedBody
from hekla.routing.exchange import JSON_TYPE, Exchange, Message, Send
from hekla.routing.headers import RawHeaders
from hekla.routing.refusal import ForeignRefusal, Refusal
from hekla.routing.translation.events import StreamTranslator
from hekla.routing.translation.formats import Translated, translated
from hekla.routing.translation.problems import AnswerUntranslatable, Untranslatable
from hekla.routing.translation.settings import TranslationSettings

_RESIZED = (b"content-length", b"content-type", b"content-encoding")


class Translation:
    def __init__(self, settings: TranslationSettings, clock: Clock, *, event_bytes_max: int) -> None:
        self._settings, self._clock, self._event_bytes_max = settings, clock, event_bytes_max

    @asynccontextmanager
    async def into(self, exchange: Exchange, asked: Body, *, for_engine: bool = False) -> AsyncIterator[Body]:
        """The request's body in the other format; inside the block the exchange is the other format's.

        Raises Refusal 400 for a request that can't be translated.
        """
        made = self._translated(exchange.path, asked, for_engine)
        path, send = exchange.path, exchange.send
        answering = Answering(exchange, send, made, self._settings.answer_bytes_max)
        exchange.path, exchange.send = made.path, answering.send
        try:
            yield Body.parse(msgspec.json.encode(made.request))
        except ForeignRefusal as refusal:
            refusal.retell(made.status(refusal.status), made.error(refusal.body(path), refusal.status))
            raise
        finally:
            exchange.path, exchange.send = path, send
            if answering.is_holding:
                exchange.status = 0  # the client has nothing of it yet: it can still be told what went wrong
        await answering.close()

    def _translated(self, path: str, asked: Body, for_engine: bool) -> Translated:
        try:
            return translated(
                path, {name: asked.get(name) for name in asked.fields}, self._settings, now_s=self._clock.now(),
                event_bytes_max=self._event_bytes_max, for_engine=for_engine,
            )  # fmt: skip
        except Untranslatable as error:
            raise Refusal(400, str(error), kind="request_protocol", code="untranslatable", param=error.field) from error
        except MalformedBody as error:
            raise Refusal(400, f"the request's body is not valid JSON text: {error}", kind="request_parsing") from error


class Answering:
    """The way back: takes ASGI messages in the target's format, and sends them in the client's."""

    def __init__(self, exchange: Exchange, send: Send, made: Translated, bytes_max: int) -> None:
        self._exchange, self._send, self._made, self._bytes_max = exchange, send, made, bytes_max
        self._status = 0
        self._headers: RawHeaders = []
        self._stream: StreamTranslator | None = None
        self._held: bytearray | None = None
        """Of a plain answer; None before it, and once it is sent."""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message["status"], message["headers"])
            return
        chunk, is_last = message.get("body", b""), not message.get("more_body", False)
        if self._stream is not None:
            out = self._stream.feed(chunk) + (self._stream.finish() if is_last else b"")
            if out or is_last:
                await self._send({"type": "http.response.body", "body": out, "more_body": not is_last})
        elif self._held is not None:
            self._held += chunk
            if len(self._held) > self._bytes_max:
                await self._fail(f"the answer is larger than {self._bytes_max} bytes (translation.answer_bytes_max)")
            elif is_last:
                await self._whole(bytes(self._held))

    @property
    def is_holding(self) -> bool:
        """An answer has begun of which nothing has been sent."""
        return self._held is not None

    async def close(self) -> None:
        """After the target has done: a plain answer that never became whole is an error now."""
        if self._held is not None:
            await self._fail(self._exchange.error_message or "the answer broke off")

    async def _begin(self, status: int, headers: RawHeaders) -> None:
        self._status = status
        self._headers = [(name, value) for name, value in headers if name not in _RESIZED]
        if status == 200 and self._exchange.is_stream:
            self._stream = self._made.stream()
            kind = (b"content-type", b"text/event-stream; charset=utf-8")
            await self._send({"type": "http.response.start", "status": status, "headers": [kind, *self._headers]})
        else:
            self._held = bytearray()

    async def _whole(self, body: bytes) -> None:
        if self._status >= 300:
            await self._answer(self._made.status(self._status), self._made.error(body, self._status))
            return
        try:
            answer: Any = msgspec.json.decode(body)
            if not isinstance(answer, dict):
                raise AnswerUntranslatable("the answer is no JSON object")
            told = msgspec.json.encode(self._made.answer(answer))
        except (AnswerUntranslatable, msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            await self._fail(f"the answer can't be translated: {error}")
            return
        await self._answer(self._status, told)

    async def _fail(self, reason: str) -> None:
        """Nothing has been sent: the client gets an error."""
        self._exchange.error_kind, self._exchange.error_message = "upstream_transport", reason
        await self._answer(502, self._made.error(msgspec.json.encode({"message": reason}), 502))

    async def _answer(self, status: int, body: bytes) -> None:
        self._held, self._exchange.status = None, status
        headers = [JSON_TYPE, (b"content-length", str(len(body)).encode()), *self._headers]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})
