"""Simulated engines in this process whose connections break where a test says, and what a client makes of the stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from hekla.deployments.simengine.app import App
from hekla.deployments.simengine.assembly import Engine
from hekla.deployments.simengine.settings import Settings, Timing
from hekla.platform.base.clock import SystemClock
from hekla.platform.base.ids import SeededIds

Json = dict[str, Any]


@dataclass
class Heard:
    """A stream as a client reads it, whatever its chunks were."""

    ids: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    """Fields of chunks and of their choices."""
    roles: int = 0
    texts: dict[str, str] = field(default_factory=dict)
    finish: dict[str, Any] = field(default_factory=dict)
    tokens: dict[int, list[int]] = field(default_factory=dict)
    logprobs: dict[str, list[Any]] = field(default_factory=dict)
    usage: Json | None = None
    last_continuous: Json | None = None
    errors: list[Json] = field(default_factory=list)
    done: int = 0

    @classmethod
    def of(cls, stream: bytes) -> Heard:
        heard = cls()
        for event in stream.decode().removesuffix("\n\n").split("\n\n"):
            assert event.startswith("data: "), event
            data = event.removeprefix("data: ")
            if data == "[DONE]":
                heard.done += 1
            else:
                assert not heard.done, "nothing comes after the end"
                heard._take(json.loads(data))
        return heard

    def _take(self, chunk: Json) -> None:
        if "error" in chunk:
            self.errors.append(chunk["error"])
            return
        self.ids.add(f"{chunk['id']} {chunk['object']} {chunk['model']}")
        self.keys |= chunk.keys() - {"usage"}
        if chunk.get("usage"):
            chunk["usage"].pop("prompt_tokens_details", None)  # what was cached depends on the engine
            if chunk["choices"]:
                self.last_continuous = chunk["usage"]
            else:
                assert self.usage is None, "usage is told once"
                self.usage = chunk["usage"]
        for choice in chunk["choices"]:
            self._choose(choice)

    def _choose(self, choice: Json) -> None:
        index = choice["index"]
        self.keys |= {f"choice.{key}" for key in choice}
        assert index not in self.finish, "nothing comes after a choice's end"
        if choice.get("finish_reason"):
            self.finish[index] = (choice["finish_reason"], choice.get("stop_reason"))
        delta = choice.get("delta") or {}
        self.roles += "role" in delta
        for name, text in [("text", choice.get("text")), ("content", delta.get("content"))]:
            self._add(f"{index}.{name}", text)
        for call in delta.get("tool_calls") or ():
            function = call.get("function") or {}
            self._add(f"{index}.tool.{call['index']}.name", function.get("name"))
            self._add(f"{index}.tool.{call['index']}.arguments", function.get("arguments"))
        self.tokens.setdefault(index, []).extend(choice.get("token_ids") or ())
        for name, values in (choice.get("logprobs") or {}).items():
            self.logprobs.setdefault(f"{index}.{name}", []).extend(values)

    def _add(self, channel: str, text: str | None) -> None:
        if text:
            self.texts[channel] = self.texts.get(channel, "") + text


class Breaking:
    """An engine whose streams break after so many events: `cuts` are used up one stream after the other."""

    def __init__(self, backend: Any, engine: Engine) -> None:
        self.backend, self.cuts = backend, list[int]()
        self._app = App(engine)
        backend.behave = self._behave

    async def _behave(self, answer: Any) -> None:
        cut = self.cuts.pop(0) if self.cuts and answer.path.startswith("/v1/") else None
        events = 0
        over = asyncio.Event()
        first = [{"type": "http.request", "body": answer.body, "more_body": False}]

        async def receive() -> Any:
            if first:
                return first.pop()
            await over.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal events
            if cut is not None and message["type"] == "http.response.body":
                if events >= cut:
                    raise Cut
                events += message.get("body", b"").count(b"\n\n")
            await answer._send(message)

        try:
            await self._app(answer.scope, receive, send)
        except Cut:
            pass  # returning without an end makes the server break the connection
        finally:
            over.set()


class Cut(Exception):
    """The engine dies here."""


class Pool:
    def __init__(self, site: Any, engines: list[Breaking]) -> None:
        self.site, self.engines = site, engines

    async def ask(self, path: str, body: Json, *cuts: int) -> Heard:
        """The answer when the engines it meets break after so many events, one after the other."""
        for engine in self.engines:
            engine.cuts.clear()
            engine.backend.requests.clear()
        if cuts:
            shared = list(cuts)
            for engine in self.engines:
                engine.cuts = shared
        named = {"x-request-id": "r1"}
        async with self.site.client.post(path, json={"model": "m", "stream": True, **body}, headers=named) as response:
            assert response.status == 200, await response.text()
            return Heard.of(await response.read())

    @property
    def requests(self) -> int:
        return sum(len(engine.backend.requests) for engine in self.engines)


StartPool = Callable[..., Awaitable[Pool]]


@pytest.fixture
async def start_pool(start_site: Any, start_backend: Any, kit: Any) -> AsyncIterator[StartPool]:
    """Starts simulated engines (no time passes in them) and an ingress in front."""
    engines: list[Engine] = []

    async def start(count: int = 3, **server: Any) -> Pool:
        breaking = []
        for seed in range(count):
            settings = Settings("served-m", ("served-m",), timing=Timing(time_scale=0.0), mean_output_tokens=1e6)
            engine = Engine(settings, SystemClock(), SeededIds(seed))
            await engine.start()
            engines.append(engine)
            breaking.append(Breaking(await start_backend(), engine))
        site = await start_site(*kit.objects(*(one.backend for one in breaking), **server))
        return Pool(site, breaking)

    yield start
    await asyncio.gather(*(engine.stop() for engine in engines))
