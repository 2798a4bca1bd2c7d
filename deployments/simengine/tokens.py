"""A tokenizer without a vocabulary: every text has one tokenization and every tokenization gives its text back.

Text is cut into pieces (an optional space and what follows up to the next white space, at most 12 characters; or one
white-space character), a piece into chunks of four ASCII characters. A chunk of n characters packs 7 bits each into the
range that starts at `_BASE[n]`; a byte outside ASCII is a token of its own, its value. English costs about 1.7 tokens a
word. Because a piece starts at its space, a text made of four-character pieces tokenizes to the same ids
wherever it stands: an answer sent back in the next turn hits the prefix cache, as it does in a real engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

SPECIAL_FIRST = 256
EOS, TURN_START, TURN_END, IMAGE = 256, 257, 258, 259
SPECIALS = {"<|endoftext|>": EOS, "<|im_start|>": TURN_START, "<|im_end|>": TURN_END, "<|image|>": IMAGE}
_SPECIAL_TEXT = {token: text for text, token in SPECIALS.items()}
_BASE = (0, 0, 512, 512 + 2**14, 512 + 2**14 + 2**21)
VOCAB_SIZE = 512 + 2**14 + 2**21 + 2**28
"""Ids lie in [0, VOCAB_SIZE); they fit 32 bits."""

_PIECES = re.compile(r" ?[^\s]{1,12}|\s")
_SPECIAL_SPLIT = re.compile("(" + "|".join(re.escape(text) for text in SPECIALS) + ")")
_CHUNK = 4
_MEMO_PIECES_MAX = 65_536
_memo: dict[str, tuple[int, ...]] = {}


def encode(text: str) -> list[int]:
    """Token ids of plain text; text that looks like a special token stays text."""
    ids: list[int] = []
    extend, known = ids.extend, _memo.get
    for piece in _PIECES.findall(text):
        extend(known(piece) or _encode_piece(piece))
    return ids


def encode_with_specials(text: str) -> list[int]:
    """As `encode`, but `<|im_start|>` and its like become their own tokens (completion prompts, `/tokenize`)."""
    if "<|" not in text:
        return encode(text)
    ids: list[int] = []
    for part in _SPECIAL_SPLIT.split(text):
        special = SPECIALS.get(part)
        if special is None:
            ids.extend(encode(part))
        else:
            ids.append(special)
    return ids


def _encode_piece(piece: str) -> tuple[int, ...]:
    ids: list[int] = []
    run: list[int] = []
    for byte in piece.encode("utf-8", "surrogatepass"):
        if byte < 128:
            run.append(byte)
        if run and (byte >= 128 or len(run) == _CHUNK):
            ids.append(_pack(run))
            run = []
        if byte >= 128:
            ids.append(byte)
    if run:
        ids.append(_pack(run))
    if len(_memo) >= _MEMO_PIECES_MAX:
        _memo.clear()
    packed = _memo[piece] = tuple(ids)
    return packed


def _pack(chunk: Sequence[int]) -> int:
    value = 0
    for byte in chunk:
        value = value << 7 | byte
    return _BASE[len(chunk)] + value


@lru_cache(_MEMO_PIECES_MAX)
def token_bytes(token: int) -> bytes:
    """The bytes one token stands for; nothing for a special token. Raises ValueError outside the vocabulary."""
    if not 0 <= token < VOCAB_SIZE:
        raise ValueError(f"token id {token} is outside the vocabulary [0, {VOCAB_SIZE})")
    if token < SPECIAL_FIRST:
        return bytes((token,))
    if token < _BASE[2]:
        return b""
    size = 2 if token < _BASE[3] else 3 if token < _BASE[4] else 4
    value = token - _BASE[size]
    return bytes(value >> shift & 127 for shift in range(7 * (size - 1), -1, -7))


def decode(tokens: Iterable[int], *, keep_specials: bool = False) -> str:
    """Text of the tokens; bytes that are not UTF-8 become U+FFFD."""
    parts = [
        _SPECIAL_TEXT.get(token, "").encode() if keep_specials and token in _SPECIAL_TEXT else token_bytes(token)
        for token in tokens
    ]
    return b"".join(parts).decode("utf-8", "replace")
