"""What an engine tells about itself: where it publishes KV events, where its tokenizer lies, how it tokenises a prompt."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from hekla.platform.base.errors import Unavailable
from hekla.routing.backend import Backend
from hekla.routing.prefix.subscriber import EventSource
from hekla.routing.upstream import Upstream, url_of

PAGE_BYTES_MAX = 4 * 2**20
TOKENS_BYTES_MAX = 64 * 2**20
TIMEOUT_S = 5.0
RANKS_MAX = 1024

Fact = TypeVar("Fact")


class EngineFacts(Protocol):
    """All raise Unavailable."""

    async def sources(self, backend: Backend) -> Sequence[EventSource]:
        """One for each data-parallel rank; empty when it publishes nothing."""

    async def folder(self, backend: Backend) -> str:
        """The model's folder on the engine's node; empty when it does not say."""

    async def tokenize(self, url: str, question: dict[str, Any]) -> array[int]:
        """The tokens of a prompt or of messages."""


class HttpEngineFacts:
    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def sources(self, backend: Backend) -> Sequence[EventSource]:
        """Engines that have no `/kv_event_sources` publish where their status says."""
        if not backend.kv_events:
            return ()
        try:
            told = msgspec.json.decode(await self._page(f"{backend.url}/kv_event_sources"))
        except (Unavailable, msgspec.DecodeError):
            told = None
        found = sources_of(told, backend.kv_events)
        if found or backend.kv_events.endswith(":0"):  # no port: only the engine knows where its ranks publish
            return found
        return (EventSource(0, backend.kv_events, backend.kv_replay),)

    async def folder(self, backend: Backend) -> str:
        try:
            cards = msgspec.json.decode(await self._page(f"{backend.url}/v1/models"))["data"]
            roots = [card.get("root") for card in cards if not card.get("parent")]
            return str(roots[0] or "") if roots else ""
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
            raise Unavailable(f"{backend.url}/v1/models: not a list of models: {error!r}") from error

    async def tokenize(self, url: str, question: dict[str, Any]) -> array[int]:
        try:
            async with self._upstream.session.post(
                url_of(f"{url}/tokenize"), data=msgspec.json.encode(question),
                headers={"content-type": "application/json"}, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
                allow_redirects=False,
            ) as response:  # fmt: skip
                body = await response.content.read(TOKENS_BYTES_MAX) if response.status == 200 else b""
                while response.status == 200 and not response.content.at_eof() and len(body) < TOKENS_BYTES_MAX:
                    body += await response.content.read(TOKENS_BYTES_MAX - len(body))
            if response.status != 200:
                raise Unavailable(f"{url}/tokenize: answered {response.status}")
            return array("I", msgspec.json.decode(body)["tokens"])
        except (
            aiohttp.ClientError, OSError, msgspec.DecodeError, KeyError, TypeError, OverflowError,
        ) as error:  # fmt: skip
            raise Unavailable(f"{url}/tokenize: {error!r:.200}") from error

    async def _page(self, url: str) -> bytes:
        return await self._upstream.page(url, timeout_s=TIMEOUT_S, bytes_max=PAGE_BYTES_MAX)


def sources_of(told: Any, published: str) -> tuple[EventSource, ...]:
    """Ranks and ports out of an engine's `/kv_event_sources`; the host is `published`'s, the engine may say `*`. Pure."""
    if not isinstance(told, dict):
        return ()
    found = []
    for rank, config in list(told.items())[:RANKS_MAX]:
        if not str(rank).isdigit() or not isinstance(config, dict) or not config.get("endpoint"):
            continue
        replay = config.get("replay_endpoint") or ""
        found.append(
            EventSource(int(rank), _reached(config["endpoint"], published), replay and _reached(replay, published))
        )
    return tuple(sorted(found))


def _reached(endpoint: str, published: str) -> str:
    """A TCP endpoint at the host where the engine is known to be."""
    here, there = urlsplit(published), str(endpoint)
    if not there.startswith("tcp://") or here.scheme != "tcp" or not here.hostname:
        return there
    host = f"[{here.hostname}]" if ":" in here.hostname else here.hostname
    return f"tcp://{host}:{there.rsplit(':', 1)[1]}"


class FakeEngineFacts:
    """Facts as a test tells them; an engine not told of is away."""

    def __init__(self) -> None:
        self.publishes: dict[str, Sequence[EventSource]] = {}
        self.folders: dict[str, str] = {}
        self.vocabulary: dict[str, Sequence[int]] = {}
        """A prompt's tokens by its text; of a chat, by its messages' contents in a row."""
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def sources(self, backend: Backend) -> Sequence[EventSource]:
        return _told(self.publishes, backend.key)

    async def folder(self, backend: Backend) -> str:
        return _told(self.folders, backend.key)

    async def tokenize(self, url: str, question: dict[str, Any]) -> array[int]:
        self.asked.append((url, question))
        text = question.get("prompt") or "".join(str(message["content"]) for message in question["messages"])
        return array("I", _told(self.vocabulary, text))


def _told(facts: dict[str, Fact], key: str) -> Fact:
    if key not in facts:
        raise Unavailable(f"nothing is told of {key!r}")
    return facts[key]
