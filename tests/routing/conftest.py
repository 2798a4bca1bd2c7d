"""Real sockets: backends that behave as a test tells them, and ingresses in front of them."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from hekla.platform.base.clock import SystemClock
from hekla.platform.base.ids import SeededIds
from hekla.routing.app import Ingress, build_ingress
from hekla.routing.config import AccessLogSettings, GossipSettings, RoutingSettings, ScrapeSettings
from hekla.routing.server import Listener, serve
from hekla.routing.source import FakeObjectSource

Json = dict[str, Any]
Behaviour = Callable[["Answer"], Awaitable[None]]


class Answer:
    """One request at a backend, to be answered over raw ASGI."""

    def __init__(self, scope: Any, receive: Any, send: Any, body: bytes) -> None:
        self.scope, self.receive, self._send, self.body = scope, receive, send, body
        self.path: str = scope["path"]
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.left = asyncio.Event()

    @property
    def json(self) -> Json:
        return dict(json.loads(self.body))

    async def begin(self, status: int = 200, **headers: str) -> None:
        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": named})

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        await asyncio.sleep(0)

    async def end(self, data: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def reply(self, status: int, obj: Any, **headers: str) -> None:
        body = obj if isinstance(obj, bytes) else json.dumps(obj).encode()
        await self.begin(status, content_type="application/json", content_length=str(len(body)), **headers)
        await self.end(body)

    async def wait_left(self) -> None:
        """Until the ingress has closed the connection."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.left.set()


async def chat(answer: Answer) -> None:
    """What an engine does with a chat request."""
    model = answer.json["model"]
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
    if not answer.json.get("stream"):
        await answer.reply(200, {"model": model, "choices": [{"message": {"content": "hi"}}], "usage": usage})
        return
    await answer.begin(content_type="text/event-stream")
    for word in ("a", "b", "c"):
        await answer.write(event({"model": model, "choices": [{"delta": {"content": word}}]}))
    if (answer.json.get("stream_options") or {}).get("include_usage"):
        await answer.write(event({"model": model, "choices": [], "usage": usage}))
    await answer.end(b"data: [DONE]\n\n")


def event(obj: Any) -> bytes:
    return b"data: " + json.dumps(obj, separators=(",", ":")).encode() + b"\n\n"


class BackendServer:
    """An engine's HTTP server; every request is kept in `requests`."""

    def __init__(self) -> None:
        self.behave: Behaviour = chat
        self.requests: list[Answer] = []
        self.connections: set[tuple[str, int]] = set()
        self._listener: Listener | None = None

    async def start(self) -> None:
        self._listener = await serve(self._app, "127.0.0.1", 0)

    @property
    def url(self) -> str:
        assert self._listener is not None
        return f"http://127.0.0.1:{self._listener.port}"

    async def stop(self) -> None:
        if self._listener is not None:
            await self._listener.stop(grace_s=0.0)
            self._listener = None

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        answer = Answer(scope, receive, send, body)
        self.requests.append(answer)
        self.connections.add(tuple(scope["client"]))
        await self.behave(answer)


def engine(name: str, url: str, *, namespace: str = "default", phase: str = "Ready", **labels: str) -> Json:
    return {
        "apiVersion": "hekla.io/v1alpha1",
        "kind": "Engine",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {"app": "m"}},
        "spec": {"serving": "m", "group": 0, "role": "server", "roleReplica": 0, "index": 0},
        "status": {"phase": phase, "address": url, "models": ["served-m"]},
    }


def model_server(name: str = "s", *, model: str = "served-m", namespace: str = "default", **spec: Any) -> Json:
    return {
        "apiVersion": "networking.serving.volcano.sh/v1alpha1",
        "kind": "ModelServer",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": model,
            "inferenceEngine": "vLLM",
            "workloadSelector": {"matchLabels": {"app": "m"}},
            "workloadPort": {"port": 8000, "protocol": "http"},
            **spec,
        },
    }


def model_route(
    name: str = "r", *, model: str = "m", rules: list[Json] | None = None, created: str = "", **spec: Any
) -> Json:
    default_rules = [{"name": "all", "targetModels": [{"modelServerName": "s"}]}]
    return {
        "apiVersion": "networking.serving.volcano.sh/v1alpha1",
        "kind": "ModelRoute",
        "metadata": {"name": name, "namespace": "default", "creationTimestamp": created},
        "spec": {"modelName": model, "rules": default_rules if rules is None else rules, **spec},
    }


class Site:
    """An ingress behind a real socket, its source of objects, and a client."""

    def __init__(self, ingress: Ingress, source: FakeObjectSource, listener: Listener) -> None:
        self.ingress, self.source, self.listener = ingress, source, listener
        self.client = aiohttp.ClientSession(
            f"http://127.0.0.1:{listener.port}", connector=aiohttp.TCPConnector(limit=0), auto_decompress=False
        )

    async def post(self, path: str = "/v1/chat/completions", **body: Any) -> tuple[int, Json]:
        async with self.client.post(path, json={"model": "m", "messages": [], **body}) as response:
            return response.status, await response.json(content_type=None)

    async def stream(self, path: str = "/v1/chat/completions", **body: Any) -> bytes:
        async with self.client.post(path, json={"model": "m", "messages": [], "stream": True, **body}) as response:
            return await response.read()

    async def table_where(self, condition: Callable[[Ingress], bool]) -> None:
        await until(lambda: condition(self.ingress), "the routing table has caught up")

    def sample(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        families = self.ingress.metrics.registry.collect()
        samples = [s for family in families for s in family.samples if s.name == "hekla_router_" + name]
        return sum(s.value for s in samples if labels.items() <= s.labels.items())

    async def stop(self) -> None:
        await self.client.close()
        await self.listener.stop()
        await self.ingress.stop()


async def until(condition: Callable[[], bool], what: str, deadline_s: float = 10.0) -> None:
    """Wait for a condition; fails when it does not come true in time."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert condition(), what


StartSite = Callable[..., Awaitable[Site]]


def quiet(settings: RoutingSettings) -> RoutingSettings:
    """No access log on the test's output, gossip on loopback, no scraping unless the test sets it up."""
    return dataclasses.replace(
        settings,
        scrape=settings.scrape if settings.scrape != ScrapeSettings() else ScrapeSettings(period_s=0),
        access_log=settings.access_log if settings.access_log.output != "stdout" else AccessLogSettings(enabled=False),
        gossip=dataclasses.replace(settings.gossip, host="127.0.0.1")
        if settings.gossip.host == "0.0.0.0"
        else settings.gossip,
    )


@pytest_asyncio.fixture
async def start_site() -> AsyncIterator[StartSite]:
    """Starts an ingress that knows the given objects; waits until its table has them."""
    sites: list[Site] = []

    async def start(*objects: Json, settings: RoutingSettings | None = None, **options: Any) -> Site:
        source = FakeObjectSource(*objects)
        source.away(options.pop("unread", False))
        ids = SeededIds(options.pop("seed", len(sites)))
        ingress = build_ingress(quiet(settings or RoutingSettings()), source, clock=SystemClock(), ids=ids, **options)
        await ingress.start()
        if not source.is_away:
            await ingress.keeper.wait_synced()
        site = Site(ingress, source, await serve(ingress.app, "127.0.0.1", 0))
        sites.append(site)
        return site

    yield start
    await asyncio.gather(*(site.stop() for site in sites))
    for site in sites:
        site.ingress.loads.check()


@pytest.fixture
def start_unread_site(start_site: StartSite) -> StartSite:
    """As `start_site`, with a resource API that is away from the start."""
    return functools.partial(start_site, unread=True)


@pytest_asyncio.fixture
async def start_backend() -> AsyncIterator[Callable[..., Awaitable[BackendServer]]]:
    backends: list[BackendServer] = []

    async def start(behave: Behaviour = chat) -> BackendServer:
        backend = BackendServer()
        backend.behave = behave
        await backend.start()
        backends.append(backend)
        return backend

    yield start
    await asyncio.gather(*(backend.stop() for backend in backends))


class Kit:
    """What test modules take from here; they can't import a conftest."""

    engine = staticmethod(engine)
    model_server = staticmethod(model_server)
    model_route = staticmethod(model_route)
    until = staticmethod(until)
    event = staticmethod(event)
    chat = staticmethod(chat)
    gossip_settings = GossipSettings(host="127.0.0.1")

    @staticmethod
    def objects(*backends: BackendServer, **server: Any) -> list[Json]:
        """One route `m` to one server `s` over these backends."""
        engines = [engine(f"e{i}", backend.url) for i, backend in enumerate(backends)]
        return [model_route(), model_server(**server), *engines]


@pytest.fixture
def kit() -> Kit:
    return Kit()
