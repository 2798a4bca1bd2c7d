"""What this router (and its peers) sent where: hashed blocks of prompts' text per engine, least recently used go first.

Nothing is known here of what an engine really keeps; so memory per engine is bounded by about what its cache can hold.
A request counts from the moment it is routed, for the next ones of a burst to follow it; if it fails before it has been
answered, what only it had brought is taken back.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from hekla.routing.prefix.hashing import BlockHasher
from hekla.routing.prefix.interface import Candidate, Match, RequestView, keys_of
from hekla.routing.prefix.presence import Lengths, Presence, Slots, runs
from hekla.routing.prefix.settings import ApproximateSettings
from hekla.routing.prompt import CHARS_PER_TOKEN
from hekla.routing.scheduling.candidates import Candidates

CACHE_SALT = "prefix.cache_salt"
"""Where a request's memo has its `cache_salt`: prompts with different salts share nothing."""

_PENDING = 2
_CONFIRMED = 1
"""An entry is twice the number of requests in flight that brought it, plus one once one of them has been answered."""


class RouteRecord(NamedTuple):
    """One route, as peers are told of it."""

    sequence: int
    engine: str
    blocks: bytes
    """The prompt's chained block hashes, 8 bytes each, in this machine's byte order."""


class ApproximateIndex:
    """Implements `PrefixIndex`. Peers must use a hasher of the same seed and the same `block_bytes`."""

    def __init__(self, settings: ApproximateSettings, hasher: BlockHasher) -> None:
        self._settings, self._hasher = settings, hasher
        self._slots, self._presence = Slots(), Presence()
        self._slot_of: dict[str, int] = {}
        self._entries: dict[str, OrderedDict[int, int]] = {}
        self._entries_max: dict[str, int] = {}
        self._records: deque[RouteRecord] = deque(maxlen=settings.records_max)
        self._sequence = 0
        self._memo_key = f"prefix.text.{id(self):x}"
        self.evicted = 0
        """Entries that had to make room so far."""

    def blocks(self, request: RequestView) -> list[int]:
        """Chained hashes of the prompt's whole text blocks."""
        return self._cut(request)[0]

    def _cut(self, request: RequestView) -> tuple[list[int], int]:
        """The blocks and the text's length in bytes."""
        found: tuple[list[int], int] | None = request.memo.get(self._memo_key)
        if found is None:
            size, most = self._settings.block_bytes, self._settings.blocks_max
            text = request.prompt_text[: size * most].encode("utf-8", "surrogatepass")
            if len(text) < size:  # no whole block: nothing to look for, and nothing to remember
                found = request.memo[self._memo_key] = ([], len(text))
                return found
            root = self._hasher.root(request.upstream_model, request.memo.get(CACHE_SALT, ""))
            chained = self._hasher.chain(root, self._hasher.text_digests(text, size)[:most])
            found = request.memo[self._memo_key] = (chained.tolist(), len(text))
        return found

    def match(self, request: RequestView, candidates: Sequence[Candidate]) -> Match:
        blocks, text_bytes = self._cut(request)
        if not blocks:
            return Match.nothing(candidates)
        lengths = runs(self._presence.bits.get, blocks, self._slots)
        held = lengths[self._slots_of(candidates)]
        total = prompt_tokens(request)
        per_block = total * self._settings.block_bytes / max(text_bytes, 1)
        tokens = np.minimum(held * per_block, max(total - 1, 0))
        return Match(tokens.tolist(), held.tolist(), len(blocks))

    def _slots_of(self, candidates: Sequence[Candidate]) -> Lengths:
        """Their slots, -1 for none; of a pool's engines they are found once, until a slot changes hands."""
        if not isinstance(candidates, Candidates):
            return np.array([self._slot_of.get(key, -1) for key in keys_of(candidates)], np.int64)
        kept: list[tuple[int, Lengths]] = candidates.pool.keep((self._memo_key, "slots"), lambda pool: [])
        if not kept or kept[0][0] != self._slots.changes:
            found = np.array([self._slot_of.get(key, -1) for key in candidates.pool.keys], np.int64)
            kept[:] = [(self._slots.changes, found)]
        return kept[0][1][candidates.positions]

    def matched_tokens(self, request: RequestView, candidates: Sequence[Candidate]) -> list[int]:
        return [int(tokens) for tokens in self.match(request, candidates).tokens]

    def routed(self, request: RequestView, engine: str, now_s: float) -> None:
        blocks = self.blocks(request)
        if blocks:
            flying = self._flying(request)
            flying[engine] = flying.get(engine, 0) + 1
            self._put(engine, blocks, _PENDING)

    def finished(self, request: RequestView, engine: str, now_s: float, *, succeeded: bool) -> None:
        """A request that ended here without `routed` counts only when it succeeded."""
        blocks = self.blocks(request)
        if not blocks:
            return
        flying = self._flying(request)
        if flying.get(engine, 0) > 0:
            flying[engine] -= 1
            self._settle(engine, blocks, succeeded)
        elif succeeded:
            self._put(engine, blocks, 0, confirmed=True)
        if succeeded:
            self._sequence += 1
            self._records.append(RouteRecord(self._sequence, engine, np.array(blocks, np.uint64).tobytes()))

    def forget(self, engine: str) -> None:
        slot = self._slot_of.pop(engine, None)
        self._entries_max.pop(engine, None)
        if slot is None:
            return
        bit = 1 << slot
        for block in self._entries.pop(engine):
            self._presence.clear(block, bit)
        self._slots.free(slot)

    def set_capacity(self, engine: str, tokens: int) -> None:
        """The engine's cache holds this many tokens; it is remembered for about as much text."""
        room = max(1, tokens * CHARS_PER_TOKEN // self._settings.block_bytes)
        self._entries_max[engine] = room
        if engine in self._entries:
            self._evict(engine, self._entries[engine], room)

    def export(self, since: int = 0, limit: int = 1024) -> list[RouteRecord]:
        """Routes of this replica after `since`, oldest first; those older than the buffer are not told any more."""
        fresh = [record for record in self._records if record.sequence > since]
        return fresh[:limit]

    def merge(self, records: Iterable[RouteRecord], known: Iterable[str]) -> None:
        """Take in what a peer sent where. Engines not in `known` are passed over: the tables may differ for a moment."""
        engines = frozenset(known)
        for record in records:
            if record.engine in engines and len(record.blocks) % 8 == 0:
                blocks = np.frombuffer(record.blocks, np.uint64)[: self._settings.blocks_max].tolist()
                self._put(record.engine, blocks, 0, confirmed=True)

    @property
    def entries(self) -> int:
        return sum(map(len, self._entries.values()))

    def entries_of(self, engine: str) -> int:
        return len(self._entries.get(engine, ()))

    def _flying(self, request: RequestView) -> dict[str, int]:
        flying: dict[str, int] = request.memo.setdefault(self._memo_key + ".flying", {})
        return flying

    def _put(self, engine: str, blocks: Sequence[int], pending: int, *, confirmed: bool = False) -> None:
        """The prompt's end first: what is least recent is its tail, as in an engine."""
        entries = self._entries.get(engine)
        if entries is None:
            entries = self._entries[engine] = OrderedDict()
            self._slot_of[engine] = self._slots.take()
        bit, bits = 1 << self._slot_of[engine], self._presence.bits
        old_before, new_before = -1, 0
        for block in reversed(blocks):
            state = entries.get(block)
            if state is None:
                old = bits.get(block, 0)
                if old is not old_before:
                    old_before, new_before = old, old | bit
                bits[block] = new_before
                entries[block] = pending + confirmed
            else:
                entries[block] = (state + pending) | confirmed
                entries.move_to_end(block)
        self._evict(engine, entries, self._entries_max.get(engine, self._settings.entries_max))

    def _settle(self, engine: str, blocks: Sequence[int], succeeded: bool) -> None:
        entries = self._entries.get(engine)
        if entries is None:
            return  # the engine has been forgotten meanwhile
        bit = 1 << self._slot_of[engine]
        for block in blocks:
            state = entries.get(block)
            if state is None or state < _PENDING:
                continue  # made room, and perhaps came again with another request
            state = state - _PENDING | (_CONFIRMED if succeeded else 0)
            if state:
                entries[block] = state
            else:
                del entries[block]
                self._presence.clear(block, bit)

    def _evict(self, engine: str, entries: OrderedDict[int, int], room: int) -> None:
        bit = 1 << self._slot_of[engine]
        while len(entries) > room:
            block, _ = entries.popitem(last=False)
            self._presence.clear(block, bit)
            self.evicted += 1

    def check(self) -> None:
        """Assert that bits and entries say the same."""
        assert self._slot_of.keys() == self._entries.keys()
        held = {(block, self._slot_of[engine]) for engine, entries in self._entries.items() for block in entries}
        marked = {
            (block, slot)
            for block, bits in self._presence.bits.items()
            for slot in range(bits.bit_length())
            if bits >> slot & 1
        }
        assert held == marked, f"{len(held ^ marked)} entries differ"
        assert all(state > 0 for entries in self._entries.values() for state in entries.values())

    def __repr__(self) -> str:
        return f"ApproximateIndex({len(self._entries)} engines, {self.entries} entries)"


def prompt_tokens(request: RequestView) -> int:
    """As exactly as is known."""
    return request.estimated_tokens if request.token_ids is None else len(request.token_ids)
