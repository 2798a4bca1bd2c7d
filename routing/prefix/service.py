"""Prefix knowledge at work in an ingress: engines are followed as they come and go, prompts are tokenised before planning."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from hekla.platform.base.clock import Clock
from hekla.platform.base.errors import Unavailable
from hekla.platform.base.ids import Ids
from hekla.platform.base.tasks import TaskOwner
from hekla.routing.backend import Backend, ModelServer
from hekla.routing.body import MalformedBody
from hekla.routing.prefix.approximate import CACHE_SALT, ApproximateIndex
from hekla.routing.prefix.engine_facts import EngineFacts
from hekla.routing.prefix.exact import ExactIndex
from hekla.routing.prefix.hashing import BlockHasher
from hekla.routing.prefix.knowledge import CombinedKnowledge
from hekla.routing.prefix.settings import PrefixSettings
from hekla.routing.prefix.stream import Begin
from hekla.routing.prefix.subscriber import Heard, KvEventSubscriber
from hekla.routing.prefix.tokenise import Teacher, Tokeniser
from hekla.routing.view import LazyView

logger = logging.getLogger(__name__)

RETRY_S = 2.0
"""An engine that does not answer is asked again after this long; it has just become ready."""
PUBLIC_SEED = "hekla"


class PrefixService:
    """`knowledge` is for plugins. `took_engines` at each new routing table, `prepare` before each plan."""

    def __init__(
        self, settings: PrefixSettings, facts: EngineFacts, *, clock: Clock, ids: Ids, shared_secret: str = ""
    ) -> None:
        self._settings, self._facts, self._clock = settings, facts, clock
        # Replicas that tell each other of routes must hash text alike; tokens are hashed by each for itself.
        self.approximate = ApproximateIndex(settings.approximate, BlockHasher(shared_secret or PUBLIC_SEED))
        tokens = BlockHasher(ids.uid())
        self.exact = ExactIndex(settings.exact, tokens)
        self.knowledge = CombinedKnowledge(self.approximate, self.exact)
        self.subscriber = KvEventSubscriber(settings.events, tokens, self._heard, clock=clock)
        self.tokeniser = Tokeniser(settings.tokeniser, facts.tokenize, clock=clock)
        self._tasks = TaskOwner("prefix")
        self._known: dict[str, Backend] = {}
        self._folders: dict[str, str] = {}

    async def start(self) -> None:
        if self._settings.enabled:
            await self.subscriber.start()

    async def stop(self) -> None:
        await self._tasks.stop()
        await self.tokeniser.stop()
        await self.subscriber.stop()

    def took_engines(self, backends: Iterable[Backend]) -> None:
        """These are all that are ready now. One whose address changed is another engine."""
        present = {backend.key: backend for backend in backends}
        for key, before in list(self._known.items()):
            now = present.get(key)
            if now is None or (now.url, now.kv_events) != (before.url, before.kv_events):
                self._forget(key)
        for key, backend in present.items():
            if key not in self._known:
                self._known[key] = backend
                if self._settings.enabled and backend.kv_events:
                    self._tasks.spawn(self._meet(backend), f"meet {key}")

    async def prepare(self, view: LazyView, server: ModelServer) -> None:
        """Gives the view its tokens, when engines of the server publish events and it takes no longer than allowed."""
        try:
            salt = view.body.get("cache_salt")
        except MalformedBody:
            return
        if isinstance(salt, str) and salt:
            view.memo[CACHE_SALT] = salt
        if view.token_ids is not None or not self._settings.enabled or not self.exact.engines:
            return
        if not self._is_worth_it(view, server):
            return
        teacher = self._teacher(server, view.random)
        view.token_ids = await self.tokeniser.tokens(view.path, view.body, view.upstream_model, teacher)

    def _is_worth_it(self, view: LazyView, server: ModelServer) -> bool:
        """Whether the tokens can tell engines apart. A prompt of token ids has no text, and costs nothing to read."""
        settings = self._settings.tokeniser
        if len(server.backends) < settings.engines_min or 0 < len(view.prompt_text) < settings.prompt_bytes_min:
            return False
        return any(self.exact.knows(backend.key) for backend in server.backends)

    def _teacher(self, server: ModelServer, chance: float) -> Teacher:
        """Any engine of the server: they serve the same model."""
        backend = server.backends[int(chance * len(server.backends))]
        return Teacher(backend.url, self._folders.get(backend.key, ""))

    async def _meet(self, backend: Backend) -> None:
        """Until it has told where it publishes, or is gone."""
        while self._known.get(backend.key) is backend:
            try:
                sources = await self._facts.sources(backend)
                folder = await self._facts.folder(backend)
            except Unavailable as error:
                logger.debug("%s: %s", backend.key, error)
                await self._clock.sleep(RETRY_S)
                continue
            if self._known.get(backend.key) is backend:
                self._folders[backend.key] = folder
                self.subscriber.follow(backend.key, sources)
            return

    def _heard(self, heard: Heard) -> None:
        if isinstance(heard.news, Begin):
            if heard.news.is_complete and heard.engine in self.exact.trusted:
                # It told of blocks before: this is a restart, with an empty cache.
                self.approximate.forget(heard.engine)
            self.exact.begin(heard.engine, heard.rank, is_complete=heard.news.is_complete)
        else:
            self.exact.apply(heard.engine, heard.news.batch, heard.rank)

    def _forget(self, key: str) -> None:
        self._known.pop(key, None)
        self._folders.pop(key, None)
        self.subscriber.drop(key)
        self.knowledge.forget(key)

    def __repr__(self) -> str:
        return f"PrefixService({self.knowledge!r})"
