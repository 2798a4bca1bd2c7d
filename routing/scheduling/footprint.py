"""How much KV cache requests in flight hold on one engine, prefixes they share counted once. Pure.

A prompt is cut into chunks of `CHUNK_TOKENS`; a chunk's name is a hash of itself and all before it. A multiset of the
chunks in flight tells which of a new request's are held already.
"""

from __future__ import annotations

from hekla.routing.scheduling.interface import RequestView

CHUNK_TOKENS = 512
CHARS_PER_TOKEN = 4
_MEMO = "footprint"


def chunks_of(request: RequestView) -> tuple[int, ...]:
    """Names of the prompt's whole chunks, kept in the request's memo."""
    found: tuple[int, ...] | None = request.memo.get(_MEMO)
    if found is None:
        found = request.memo[_MEMO] = _chunks(request)
    return found


def _chunks(request: RequestView) -> tuple[int, ...]:
    names, before = [], hash(request.upstream_model)
    if request.token_ids is not None:
        ids = request.token_ids
        for start in range(0, len(ids) - CHUNK_TOKENS + 1, CHUNK_TOKENS):
            before = hash((before, tuple(ids[start : start + CHUNK_TOKENS])))
            names.append(before)
        return tuple(names)
    text, size = request.prompt_text, CHUNK_TOKENS * CHARS_PER_TOKEN
    for start in range(0, len(text) - size + 1, size):
        before = hash((before, text[start : start + size]))
        names.append(before)
    return tuple(names)


class Footprint:
    """The chunks in flight on one engine."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[int, int] = {}

    def add(self, chunks: tuple[int, ...]) -> int:
        """Tokens of those that nobody held."""
        held, fresh = self._held, 0
        for chunk in chunks:
            users = held.get(chunk, 0)
            fresh += not users
            held[chunk] = users + 1
        return fresh * CHUNK_TOKENS

    def remove(self, chunks: tuple[int, ...]) -> int:
        """Tokens of those that nobody holds any more."""
        held, freed = self._held, 0
        for chunk in chunks:
            users = held[chunk] - 1
            if users:
                held[chunk] = users
            else:
                del held[chunk]
                freed += 1
        return freed * CHUNK_TOKENS

    def __bool__(self) -> bool:
        return bool(self._held)
