"""The HTTP server: a plain ASGI application, no framework on the way of a request."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
import zmq

from hekla.deployments.simengine import chat, completions, messages, responses, wire
from hekla.deployments.simengine.assembly import Engine
from hekla.deployments.simengine.exposition import CONTENT_TYPE
from hekla.deployments.simengine.generation import ClientGone, Generation
from hekla.deployments.simengine.intake import Job
from hekla.deployments.simengine.loadreport import ASKED_BY, SENT_AS, load_report
from hekla.deployments.simengine.refusal import Refusal
from hekla.deployments.simengine.template import render_chat
from hekla.deployments.simengine.tokens import VOCAB_SIZE, decode, encode_with_specials
from hekla.platform.base.tasks import TaskOwner

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Handler = Callable[["Exchange"], Awaitable[None]]

VERSION = "0.32.0+simulated"
JSON, TEXT, EVENTS = b"application/json", b"text/plain; charset=utf-8", b"text/event-stream; charset=utf-8"
logger = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode


class Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self.scope = scope
        self.request_id = request_id
        self.receive = receive
        self._send = send
        self.started = False
        self.load_report: str | None = None

    def header(self, name: bytes) -> str:
        for key, value in self.scope["headers"]:
            if key == name:
                return str(value, "latin-1")
        return ""

    async def body(self) -> bytes:
        """Raises Refusal for a body over the limit, ClientGone."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            size += len(part)
            if size > wire.BODY_BYTES_MAX:
                raise Refusal(f"the body is larger than {wire.BODY_BYTES_MAX} bytes", 413)
            parts.append(part)
            if not message.get("more_body"):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def start(self, status: int, kind: bytes, length: int | None = None) -> None:
        headers = [(b"content-type", kind), (b"x-request-id", self.request_id.encode("latin-1", "replace"))]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        if self.load_report:
            headers.append((SENT_AS, self.load_report.encode()))
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes, *, more: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def answer(self, content: Any, status: int = 200) -> None:
        data = _encode(content)
        await self.start(status, JSON, len(data))
        await self.write(data)

    async def text(self, text: str, status: int = 200, kind: bytes = TEXT) -> None:
        data = text.encode()
        await self.start(status, kind, len(data))
        await self.write(data)


class App:
    """ASGI over a started or not yet started `Engine`; the lifespan starts and stops it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._serial = 0
        self._in_flight = 0
        self._tasks = TaskOwner("simengine-http")
        self._routes = self._table()

    def _table(self) -> dict[tuple[str, str], Handler]:
        return {
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completions,
            ("POST", "/v1/responses"): self._responses,
            ("POST", "/v1/messages"): self._messages,
            ("POST", "/v1/messages/count_tokens"): self._count_tokens,
            ("POST", "/v1/embeddings"): self._embeddings,
            ("GET", "/v1/models"): self._models,
            ("POST", "/tokenize"): self._tokenize,
            ("POST", "/detokenize"): self._detokenize,
            ("GET", "/health"): self._health,
            ("GET", "/ping"): self._health,
            ("POST", "/ping"): self._health,
            ("GET", "/version"): self._version,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/load"): self._load,
            ("POST", "/v1/load_lora_adapter"): self._load_adapter,
            ("POST", "/v1/unload_lora_adapter"): self._unload_adapter,
            ("POST", "/reset_prefix_cache"): self._reset_prefix_cache,
            ("GET", "/kv_event_sources"): self._kv_event_sources,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._engine.start()
        except (OSError, zmq.ZMQError) as error:  # a port is taken
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._tasks.stop()
        await self._engine.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, "")
        exchange.request_id = exchange.header(b"x-request-id") or self._engine.ids.uid().replace("-", "")
        try:
            self._authorize(exchange)
            await self._handler(scope)(exchange)
        except Refusal as refusal:
            await self._refuse(exchange, refusal)
        except ClientGone:
            logger.debug("client of %s has gone", exchange.request_id)
        except ValueError as error:
            await self._refuse(exchange, Refusal(str(error)))

    async def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        anthropic = exchange.scope["path"].startswith("/v1/messages")
        body = refusal.anthropic_body() if anthropic else refusal.body()
        if not exchange.started:
            await exchange.answer(body, refusal.code)
        elif anthropic:  # a stream that breaks says so in its last event
            await exchange.write(b"event: error\ndata: " + _encode(body) + b"\n\n")
        else:
            await exchange.write(b"data: " + _encode(body) + b"\n\ndata: [DONE]\n\n")

    def _handler(self, scope: Scope) -> Handler:
        path, method = scope["path"], scope["method"]
        handler = self._routes.get((method, path))
        if handler is not None:
            return handler
        if any(known == path for _, known in self._routes):
            raise Refusal("Method Not Allowed", 405, kind="Method Not Allowed")
        raise Refusal("Not Found", 404, kind="Not Found")

    def _authorize(self, exchange: Exchange) -> None:
        key = self._engine.settings.api_key
        if key and exchange.scope["path"].startswith("/v1") and exchange.header(b"authorization") != f"Bearer {key}":
            raise Refusal("Unauthorized", 401, kind="Unauthorized")

    # -- generation ----------------------------------------------------------------------------------------------

    async def _chat(self, exchange: Exchange) -> None:
        body = wire.parse(await exchange.body(), wire.ChatRequest)
        job = self._engine.intake.chat(body, f"chatcmpl-{exchange.request_id}")
        await self._run(exchange, job, chat.full, lambda *args: _unnamed(chat.stream(*args)))

    async def _completions(self, exchange: Exchange) -> None:
        body = wire.parse(await exchange.body(), wire.CompletionRequest)
        job = self._engine.intake.completion(body, f"cmpl-{exchange.request_id}")
        await self._run(exchange, job, completions.full, lambda *args: _unnamed(completions.stream(*args)))

    async def _responses(self, exchange: Exchange) -> None:
        body = wire.parse(await exchange.body(), wire.ResponsesRequest)
        job = self._engine.intake.responses(body, f"resp_{exchange.request_id}")
        await self._run(exchange, job, responses.full, lambda *args: _named(responses.stream(*args)))

    async def _messages(self, exchange: Exchange) -> None:
        body = wire.parse(await exchange.body(), wire.MessagesRequest)
        job = self._engine.intake.messages(body, f"msg_{exchange.request_id}")
        await self._run(exchange, job, messages.full, lambda *args: _named(messages.stream(*args)))

    async def _run(
        self,
        exchange: Exchange,
        job: Job,
        full: Callable[[Generation, int], dict[str, Any]],
        stream: Callable[[Generation, int], AsyncIterator[bytes]],
    ) -> None:
        generation = self._admit(job)
        self._in_flight += 1
        watch = self._tasks.spawn(_watch(exchange, generation), "disconnect")
        created = int(self._engine.clock.now())
        try:
            if not job.sampling.stream:
                await generation.collect()
            if form := exchange.header(ASKED_BY):
                exchange.load_report = load_report(form, self._engine.core)
            if not job.sampling.stream:
                await exchange.answer(full(generation, created))
                return
            await exchange.start(200, EVENTS)
            async for data in stream(generation, created):
                await exchange.write(data, more=True)
            await exchange.write(b"")
        finally:
            self._in_flight -= 1
            watch.cancel()
            generation.close()

    def _admit(self, job: Job) -> Generation:
        engine = self._engine
        faults, most = engine.settings.faults, engine.settings.max_queued_requests
        if faults.error_rate and engine.chance.random() < faults.error_rate:
            raise Refusal("a fault on purpose (--error-rate)", faults.error_code)
        if most and engine.core.unfinished >= most:
            engine.core.counters.rejected += 1
            raise Refusal(
                f"{engine.core.unfinished} requests are in the engine, the most it takes (--max-num-queued-reqs)", 503
            )
        self._serial += 1
        return Generation(job, engine.intake.engine_requests(job, self._serial), engine.runner)

    # -- the rest ------------------------------------------------------------------------------------------------

    async def _embeddings(self, exchange: Exchange) -> None:
        body = wire.parse(await exchange.body(), wire.EmbeddingRequest)
        self._engine.models.resolve(body.model)
        raise Refusal("The model does not support Embeddings API")

    async def _count_tokens(self, exchange: Exchange) -> None:
        fields = msgspec.json.decode(await exchange.body())
        if not isinstance(fields, dict):
            raise Refusal("body: an object is needed")
        body = msgspec.convert(fields | {"max_tokens": 1}, wire.MessagesRequest)
        job = self._engine.intake.messages(body, "count")
        await exchange.answer({"input_tokens": len(job.prompts[0])})

    async def _models(self, exchange: Exchange) -> None:
        await exchange.answer(self._engine.models.cards())

    async def _tokenize(self, exchange: Exchange) -> None:
        body = wire.parse(await exchange.body(), wire.TokenizeRequest)
        self._engine.models.resolve(body.model)
        if (body.prompt is None) == (body.messages is None):
            raise Refusal("one of prompt and messages is needed", param="prompt")
        if body.messages is not None:
            tokens = render_chat(
                body.messages,
                body.tools,
                open_answer=body.add_generation_prompt,
                continue_last=body.continue_final_message,
            )
        else:
            tokens = encode_with_specials(body.prompt or "")
        pieces = [decode((token,), keep_specials=True) for token in tokens] if body.return_token_strs else None
        most = self._engine.models.max_model_len
        await exchange.answer({"count": len(tokens), "max_model_len": most, "tokens": tokens, "token_strs": pieces})

    async def _detokenize(self, exchange: Exchange) -> None:
        body = wire.parse(await exchange.body(), wire.DetokenizeRequest)
        self._engine.models.resolve(body.model)
        if any(not 0 <= token < VOCAB_SIZE for token in body.tokens):
            raise Refusal(f"tokens: every id must be in [0, {VOCAB_SIZE})", param="tokens")
        await exchange.answer({"prompt": decode(body.tokens, keep_specials=True)})

    async def _health(self, exchange: Exchange) -> None:
        await exchange.text("", 200 if self._engine.is_healthy else 503)

    async def _version(self, exchange: Exchange) -> None:
        await exchange.answer({"version": VERSION})

    async def _metrics(self, exchange: Exchange) -> None:
        page = self._engine.metrics.page(self._engine.core, self._engine.clock.now())
        await exchange.text(page, kind=CONTENT_TYPE.encode())

    async def _load(self, exchange: Exchange) -> None:
        await exchange.answer({"server_load": self._in_flight})

    async def _load_adapter(self, exchange: Exchange) -> None:
        body = wire.parse(await exchange.body(), wire.LoadAdapterRequest)
        await exchange.text(self._engine.models.load(body.lora_name, body.lora_path, again=body.load_inplace))

    async def _unload_adapter(self, exchange: Exchange) -> None:
        body = wire.parse(await exchange.body(), wire.UnloadAdapterRequest)
        await exchange.text(self._engine.models.unload(body.lora_name))

    async def _reset_prefix_cache(self, exchange: Exchange) -> None:
        await exchange.answer({"success": self._engine.runner.clear_cache()})

    async def _kv_event_sources(self, exchange: Exchange) -> None:
        publisher = self._engine.publisher
        await exchange.answer({} if publisher is None else {"0": publisher.config})


async def _watch(exchange: Exchange, generation: Generation) -> None:
    """After the body, the next thing a server delivers is the client's leave."""
    while (await exchange.receive())["type"] != "http.disconnect":
        pass
    generation.leave()


async def _unnamed(chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield b"data: " + _encode(chunk) + b"\n\n"
    yield b"data: [DONE]\n\n"


async def _named(events: AsyncIterator[tuple[str, dict[str, Any]]]) -> AsyncIterator[bytes]:
    async for name, data in events:
        yield b"event: " + name.encode() + b"\ndata: " + _encode(data) + b"\n\n"
