"""Prompts as the tokens that an engine will see, in time for the decision, off the event loop.

In the order of preference: ids that the client sent; the model's own tokenizer and template, when its folder can be read
from here; the engine's `/tokenize`. What does not come by the deadline is not waited for: the prompt is then known by its
text. The first prompts of each model are also put to the engine, and if it sees other tokens than we do, it is asked from
then on: a template may use what only the engine knows.
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hekla.platform.base.clock import Clock
from hekla.platform.base.tasks import TaskOwner
from hekla.routing.body import Body, MalformedBody
from hekla.routing.prefix.settings import TokeniserSettings
from hekla.routing.prefix.vocabulary import CannotTokenise, PieceCache, Vocabulary

logger = logging.getLogger(__name__)

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
_ASKED = ("messages", "prompt", "tools", "add_generation_prompt", "continue_final_message", "chat_template",
          "chat_template_kwargs", "add_special_tokens", "mm_processor_kwargs")  # fmt: skip
"""Fields that `/tokenize` and the inference paths have in common."""
_ONLY_THE_ENGINE = frozenset(_ASKED) - {"messages", "prompt", "add_generation_prompt"} | {
    "documents",
    "reasoning_effort",
}
_UNKNOWABLE = ("truncate_prompt_tokens", "prompt_embeds", "suffix")
CHECKED_PROMPTS = 2
"""Per model and kind of prompt."""
MODELS_MAX = 64

Ask = Callable[[str, dict[str, Any]], Awaitable[Sequence[int]]]
"""The engine's answer to `/tokenize` at this base URL. Raises OSError, ValueError or the client's own errors."""


@dataclass(frozen=True)
class Teacher:
    """Who knows a model's tokens: an engine, and the folder with the tokenizer if it told of one."""

    url: str
    folder: str = ""


@dataclass
class TokeniserCounts:
    given: int = 0
    local: int = 0
    engine: int = 0
    late: int = 0
    failed: int = 0
    overloaded: int = 0
    mismatched: int = 0
    """Prompts that the engine tokenised in another way than we did."""


@dataclass
class _Model:
    vocabulary: Vocabulary | None
    checks: dict[str, int]
    """Per path, how many prompts are still to be compared; below zero: they differed."""


class Tokeniser:
    def __init__(self, settings: TokeniserSettings, ask: Ask, *, clock: Clock) -> None:
        self._settings, self._ask, self._clock = settings, ask, clock
        self._cache = PieceCache(settings.cache_bytes_max)
        self._threads = ThreadPoolExecutor(settings.threads, "tokenise")
        self._models: dict[str, _Model] = {}
        self._pending = 0
        self._tasks = TaskOwner("tokenise")
        self.counts = TokeniserCounts()
        self.seconds: Callable[[float], None] = lambda _: None
        """Told how long each prompt took."""

    def use(self, settings: TokeniserSettings) -> None:
        """Other deadlines and bounds from now on; threads and cache stay as they are."""
        self._settings = settings

    async def stop(self) -> None:
        await self._tasks.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def tokens(self, path: str, body: Body, model: str, teacher: Teacher) -> Sequence[int] | None:
        """The prompt's tokens, or None: not known in time. `model` is the name the engine goes by. Never fails."""
        try:
            given = given_tokens(body)
            if given is not None or not _is_tokenisable(path, body):
                self.counts.given += given is not None
                return given
        except MalformedBody:
            return None
        if self._pending >= self._settings.pending_max or len(body.raw) > self._settings.prompt_bytes_max:
            self.counts.overloaded += 1
            return None
        began_s = self._clock.monotonic()
        self._pending += 1
        work = self._tasks.spawn(self._tokens(path, body, model, teacher), "prompt")
        work.add_done_callback(lambda _: self._done())
        done, _ = await asyncio.wait({work}, timeout=self._deadline_s(body))
        self.seconds(self._clock.monotonic() - began_s)
        if not done:
            self.counts.late += 1  # it goes on: what it learns helps the next prompt
            return None
        found: Sequence[int] | None = work.result()
        return found

    def _deadline_s(self, body: Body) -> float:
        return self._settings.deadline_s + self._settings.deadline_s_per_mib * len(body.raw) / 2**20

    def _done(self) -> None:
        self._pending -= 1

    async def _tokens(self, path: str, body: Body, model: str, teacher: Teacher) -> Sequence[int] | None:
        try:
            found = await self._local(path, body, model, teacher)
            if found is not None:
                self.counts.local += 1
                return found
            found = await self._remote(body, model, teacher)
            self.counts.engine += 1
            return found
        except Exception:  # whatever the tokenizer, the template or the engine's answer is like
            self.counts.failed += 1
            logger.debug("a prompt for %s could not be tokenised", model, exc_info=True)
            return None

    async def _local(self, path: str, body: Body, model: str, teacher: Teacher) -> array[int] | None:
        """None: the engine must be asked."""
        if not teacher.folder or any(name in body for name in _ONLY_THE_ENGINE):
            return None
        loop = asyncio.get_running_loop()
        known = self._models.get(teacher.folder)
        if known is None:
            if len(self._models) >= MODELS_MAX:
                self._models.clear()
            vocabulary = await loop.run_in_executor(self._threads, self._read, teacher.folder)
            known = self._models.setdefault(
                teacher.folder, _Model(vocabulary, {CHAT: CHECKED_PROMPTS, TEXT: CHECKED_PROMPTS})
            )
        if known.vocabulary is None or known.checks[path] < 0:
            return None
        try:
            found = await loop.run_in_executor(self._threads, _encode, known.vocabulary, path, body)
        except CannotTokenise as error:
            logger.debug("%s: %s", model, error)
            return None
        if known.checks[path] > 0:
            known.checks[path] -= 1
            self._tasks.spawn(self._compare(known, path, body, model=model, teacher=teacher, found=found), "compare")
        return found

    def _read(self, folder: str) -> Vocabulary | None:
        """In a thread."""
        try:
            return Vocabulary(Path(folder), self._cache)
        except CannotTokenise as error:
            logger.info("no tokenizer can be read from here, engines are asked instead: %s", error)
            return None

    async def _compare(
        self, known: _Model, path: str, body: Body, *, model: str, teacher: Teacher, found: array[int]
    ) -> None:
        try:
            seen = await self._remote(body, model, teacher)
        except Exception:
            logger.debug("%s could not be asked for its tokens", teacher.url, exc_info=True)
            return
        if array("I", seen) != found:
            self.counts.mismatched += 1
            known.checks[path] = -1
            logger.warning(
                "%s tokenises %s in another way than its folder says; it is asked from now on", teacher.url, path
            )

    async def _remote(self, body: Body, model: str, teacher: Teacher) -> array[int]:
        question = {name: body.get(name) for name in _ASKED if name in body}
        return array("I", await self._ask(teacher.url, {**question, "model": model}))

    @property
    def cache_hits(self) -> int:
        return self._cache.hits

    @property
    def cache_misses(self) -> int:
        return self._cache.misses


def given_tokens(body: Body) -> array[int] | None:
    """A prompt of token ids, alone or as a batch of one. Raises MalformedBody."""
    prompt = body.get("prompt") if "prompt" in body else None
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], list):
        prompt = prompt[0]
    if not isinstance(prompt, list) or not prompt or not isinstance(prompt[0], int):
        return None
    try:
        return array("I", prompt)
    except (TypeError, OverflowError):
        return None  # the engine will say what is wrong with it


def _is_tokenisable(path: str, body: Body) -> bool:
    if any(name in body for name in _UNKNOWABLE):
        return False
    field = "messages" if path == CHAT else "prompt" if path == TEXT else ""
    return bool(field) and field in body and (field == "messages" or isinstance(body.get(field), str))


def _encode(vocabulary: Vocabulary, path: str, body: Body) -> array[int]:
    """In a thread. Raises CannotTokenise, MalformedBody."""
    if path == TEXT:
        return vocabulary.text(body.get("prompt"))
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(map(_is_plain, messages)):
        raise CannotTokenise("only the engine knows what it makes of parts, tool calls and media")
    opens = body.get("add_generation_prompt")
    return vocabulary.chat(messages, add_generation_prompt=True if opens is None else bool(opens))


def _is_plain(message: Any) -> bool:
    return (
        isinstance(message, dict) and message.keys() <= {"role", "content"} and isinstance(message.get("content"), str)
    )
