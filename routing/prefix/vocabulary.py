"""A model's own tokenizer and chat template, read from its folder. No clock, no network; slow, so for a thread.

A special token ends what comes before it: no other token reaches across. So a prompt is cut at its special tokens, and each
piece (a turn of a chat) is encoded once and remembered. Whether that gives the same as encoding the whole is tried out when
the tokenizer is read, and again on the 1st, 2nd, 4th, 8th … prompt; once it does not, whole prompts are encoded for good.
"""

from __future__ import annotations

import json
import re
import threading
from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

PIECE_CHARS_MAX = 2**20


class CannotTokenise(Exception):
    """This tokenizer can't do it as the engine would; says why."""


class PieceCache:
    """Least recently used pieces go first. For several threads."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._pieces: OrderedDict[tuple[int, str], array[int]] = OrderedDict()
        self.bytes = self.hits = self.misses = 0

    def get(self, owner: int, text: str) -> array[int] | None:
        with self._lock:
            found = self._pieces.get((owner, text))
            if found is None:
                self.misses += 1
            else:
                self.hits += 1
                self._pieces.move_to_end((owner, text))
            return found

    def put(self, owner: int, text: str, ids: array[int]) -> None:
        with self._lock:
            if (owner, text) not in self._pieces:
                self._pieces[(owner, text)] = ids
                self.bytes += _cost(text, ids)
            while self.bytes > self._bytes_max:
                (_, oldest), dropped = self._pieces.popitem(last=False)
                self.bytes -= _cost(oldest, dropped)

    def __len__(self) -> int:
        return len(self._pieces)


def _cost(text: str, ids: array[int]) -> int:
    """Bytes, about: the text, the ids, and what the interpreter adds to them."""
    return 4 * len(text) + 4 * len(ids) + 300


class Vocabulary:
    """Raises CannotTokenise when the folder holds no tokenizer that can be read."""

    def __init__(self, folder: Path, cache: PieceCache) -> None:
        try:
            import tokenizers

            self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            config = json.loads(_text(folder / "tokenizer_config.json") or "{}")
            self._template = _chat_template(folder, config)
        except Exception as error:  # the library raises bare exceptions
            raise CannotTokenise(f"no tokenizer can be read in {folder}: {error}") from error
        self._named = {
            name: value if isinstance(value, str) else (value or {}).get("content")
            for name in ("bos_token", "eos_token", "unk_token", "pad_token")
            if (value := config.get(name)) is not None
        }
        self._cache = cache
        self._encoded = 0
        self._cuts = self._safe_cuts()

    def text(self, prompt: str) -> array[int]:
        """As an engine encodes a completion's prompt: with what the tokenizer adds at its beginning."""
        return self._whole("\0text", prompt, add_special_tokens=True)

    def chat(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True) -> array[int]:
        """Raises CannotTokenise when there is no template or it refuses the messages."""
        if self._template is None:
            raise CannotTokenise("the model has no chat template")
        try:
            rendered = self._template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._named,
            )
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, RecursionError) as error:
            raise CannotTokenise(f"the chat template refuses it: {error!r:.200}") from error
        return self._rendered(rendered)

    @property
    def is_cut(self) -> bool:
        """True while prompts are encoded piece by piece."""
        return self._cuts is not None

    def _rendered(self, text: str) -> array[int]:
        if self._cuts is None:
            return self._whole("\0chat", text, add_special_tokens=False)
        ids: array[int] = array("I")
        for piece in self._cuts.split(text):
            if piece:
                ids.extend(self._piece(piece))
        self._encoded += 1
        if self._encoded & (self._encoded - 1) == 0 and ids != self._encode(text, add_special_tokens=False):
            self._cuts = None
            return self._encode(text, add_special_tokens=False)
        return ids

    def _piece(self, text: str) -> array[int]:
        found = self._cache.get(id(self), text)
        if found is None:
            found = self._encode(text, add_special_tokens=False)
            self._cache.put(id(self), text, found)
        return found

    def _whole(self, kind: str, text: str, *, add_special_tokens: bool) -> array[int]:
        found = self._cache.get(id(self), kind + text)
        if found is None:
            found = self._encode(text, add_special_tokens=add_special_tokens)
            self._cache.put(id(self), kind + text, found)
        return found

    def _encode(self, text: str, *, add_special_tokens: bool) -> array[int]:
        return array("I", self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)

    def _safe_cuts(self) -> re.Pattern[str] | None:
        """Where a text may be cut; None when cutting changes the tokens."""
        added = self._tokenizer.get_added_tokens_decoder().values()
        plain = [t.content for t in added if t.special and not (t.lstrip or t.rstrip or t.single_word or t.normalized)]
        if not plain:
            return None
        cuts = re.compile("(" + "|".join(re.escape(token) for token in sorted(plain, key=len, reverse=True)) + ")")
        first, second = plain[0], plain[-1]
        for probe in (
            f"{first}system\nBe  brief. {second}\n{first}user\n Hé, 1234 {second}{first}",
            f"a {first} b{second}c",
        ):
            pieces = [piece for piece in cuts.split(probe) if piece]
            parts = [token for piece in pieces for token in self._encode(piece, add_special_tokens=False)]
            if parts != list(self._encode(probe, add_special_tokens=False)):
                return None
        return cuts


def _chat_template(folder: Path, config: Mapping[str, Any]) -> jinja2.Template | None:
    """As Hugging Face's tokenizers read it, in a sandbox: a model's folder is data, not code."""
    source = _text(folder / "chat_template.jinja") or config.get("chat_template")
    if isinstance(source, list):
        source = next((each["template"] for each in source if each.get("name") == "default"), None)
    if not source:
        return None
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(source)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
