"""What engines say they hold, block by block, from their KV events.

Every data-parallel rank of an engine is a row of its own, and an engine is as good as its best rank. A prompt is held as far as
its blocks are in device memory without a gap, then as far as they go on in host memory, then in storage: that
is the order in which an engine finds them again. Requests on their way count too (`routed`): what they will leave behind
is credited until they have ended, since events only come once a prefill is done.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from hekla.routing.prefix.approximate import CACHE_SALT
from hekla.routing.prefix.batch import TIERS, Batch, Cleared, Removed, Stored
from hekla.routing.prefix.credit import InFlightCredit
from hekla.routing.prefix.hashing import BlockHasher, token_array
from hekla.routing.prefix.interface import Candidate, Match, RequestView, keys_of
from hekla.routing.prefix.presence import Lengths, Presence, Slots, runs
from hekla.routing.prefix.row import EventCounts, Row
from hekla.routing.prefix.settings import ExactSettings


class ExactIndex:
    """Implements `PrefixIndex`. All calls come from one thread."""

    def __init__(self, settings: ExactSettings, hasher: BlockHasher) -> None:
        self._settings, self._hasher = settings, hasher
        self._credits = (1.0, settings.host_memory_credit, settings.storage_credit)
        self._slots = Slots()
        self._tiers = tuple(Presence() for _ in range(TIERS))
        self._rows: dict[str, dict[int, Row]] = {}
        self._first_slot: dict[str, int] = {}
        self._credit = InFlightCredit(settings.credit_tokens)
        self._roots: dict[str, int] = {}
        self._memo_key = f"prefix.tokens.{id(self):x}"
        self._sizes: set[int] | None = None
        """Block sizes in use; None: to be found out again."""
        self._with_ranks: set[str] = set()
        """Engines of more than one row."""
        self.counts = EventCounts()
        self.cached: dict[str, int] = {}
        """Tokens in each trusted engine's device memory, in use or not; to be read only."""
        self.complete: set[str] = set()
        """Engines of which all that they hold is known."""
        self.trusted: set[str] = set()
        """Those of them that have told of a block since: with its size, what is on its way can be credited exactly."""

    def apply(self, engine: str, batch: Batch, rank: int = 0) -> None:
        """Take in what an engine told. `rank` is where the batch was heard; what it says itself comes first."""
        row = self._row(engine, rank if batch.rank is None else batch.rank)
        size = row.block_size
        for event in batch.events:
            if isinstance(event, Stored):
                if not row.holds_prefixes(event):
                    self.counts.passed_over += len(event.keys)
                elif event.digests:
                    row.store(event, self._root(event.adapter))
                else:
                    row.move(event)
            elif isinstance(event, Removed):
                row.remove(event)
            elif isinstance(event, Cleared):
                row.clear()
                row.is_complete = True
        if row.block_size != size:
            self._sizes = None
        self._review(engine)

    def begin(self, engine: str, rank: int = 0, *, is_complete: bool) -> None:
        """A stream of events begins: nothing of what was known holds. Complete: it begins with the engine itself."""
        self._row(engine, rank).begin(is_complete=is_complete)
        self._sizes = None
        self._review(engine)

    def _review(self, engine: str) -> None:
        if all(row.is_complete and row.is_usable for row in self._rows[engine].values()):
            self.complete.add(engine)
        else:
            self.complete.discard(engine)
        if engine in self.complete and all(row.block_size for row in self._rows[engine].values()):
            self.trusted.add(engine)
            self.cached[engine] = sum(len(row.held[0]) * row.block_size for row in self._rows[engine].values())
        else:
            self.trusted.discard(engine)
            self.cached.pop(engine, None)

    def knows(self, engine: str) -> bool:
        """True when its events can tell prefixes."""
        rows = self._rows.get(engine)
        return rows is not None and any(row.is_usable for row in rows.values())

    def match(self, request: RequestView, candidates: Sequence[Candidate]) -> Match:
        keys = keys_of(candidates)
        sizes = self._block_sizes(keys)
        if request.token_ids is None or not sizes:
            return Match.nothing(candidates)
        most = max(len(request.token_ids) - 1, 0)
        tokens, held, total = np.zeros(len(candidates)), np.zeros(len(candidates), np.int64), 0
        for size in sizes:
            blocks = self.blocks(request, size)
            usable = blocks[: most // size]  # the last token is always computed, and with it its block
            lengths = self._lengths(usable)
            credited = size * (lengths[0] + sum(
                credit * (further - near)
                for credit, near, further in zip(self._credits[1:], lengths, lengths[1:], strict=False)
            ))  # fmt: skip
            credited = np.maximum(credited, np.minimum(self._credit.tokens(usable, size, self._slots), most))
            slots = self._best_slots(keys, credited)
            tokens, held = np.maximum(tokens, credited[slots]), np.maximum(held, lengths[-1][slots])
            total = max(total, len(blocks))
        return Match(tokens.tolist(), held.tolist(), total)

    def matched_tokens(self, request: RequestView, candidates: Sequence[Candidate]) -> list[int]:
        return [int(tokens) for tokens in self.match(request, candidates).tokens]

    def best_rank(self, request: RequestView, engine: str) -> int | None:
        """The data-parallel rank that holds most of the prompt; None when none holds anything."""
        rows, best, found = self._rows.get(engine, {}), 0, None
        for rank, row in rows.items():
            if row.block_size and request.token_ids is not None:
                length = int(self._lengths(self.blocks(request, row.block_size))[-1][row.slot])
                if length * row.block_size > best:
                    best, found = length * row.block_size, rank
        return found

    def blocks(self, request: RequestView, block_size: int) -> list[int]:
        """Chained hashes of the prompt's whole blocks; none while it is not tokenised."""
        if request.token_ids is None:
            return []
        key = f"{self._memo_key}.{block_size}"
        found: list[int] | None = request.memo.get(key)
        if found is None:
            found = request.memo[key] = self._chained(request, request.token_ids, block_size)
        return found

    def _chained(self, request: RequestView, ids: Sequence[int], block_size: int) -> list[int]:
        try:
            tokens = token_array(ids[: block_size * self._settings.blocks_max])
        except (OverflowError, TypeError, ValueError):
            return []  # no engine takes such ids: the one that gets the request will say so
        digests = self._hasher.digests(tokens, block_size)
        salt = request.memo.get(CACHE_SALT)
        if salt and len(digests):
            digests[0] = self._hasher.keyed(int(digests[0]), [salt])
        root = self._root(request.upstream_model if request.is_adapter else "")
        chained: list[int] = self._hasher.chain(root, digests).tolist()
        return chained

    def routed(self, request: RequestView, engine: str, now_s: float) -> None:
        """Credited to the rank that is best for it: where an engine puts it itself is not known."""
        row = self._rank_for(request, engine)
        if row is not None and row.block_size:
            blocks = self.blocks(request, row.block_size)
            self._credit.add(request.memo, self._memo_key, engine, (row.slot, row.block_size, blocks))

    def finished(self, request: RequestView, engine: str, now_s: float, *, succeeded: bool) -> None:
        self._credit.take_back(request.memo, self._memo_key, engine)

    def forget(self, engine: str) -> None:
        self._first_slot.pop(engine, None)
        self.complete.discard(engine)
        self.trusted.discard(engine)
        self.cached.pop(engine, None)
        self._with_ranks.discard(engine)
        self._sizes = None
        for row in self._rows.pop(engine, {}).values():
            row.clear()
            self._credit.forget(row.slot)
            self._slots.free(row.slot)

    @property
    def entries(self) -> int:
        """Blocks of all rows and tiers."""
        return sum(row.entries for rows in self._rows.values() for row in rows.values())

    @property
    def engines(self) -> Collection[str]:
        return self._rows.keys()

    def _lengths(self, blocks: Sequence[int]) -> list[Lengths]:
        """Per tier: blocks held in it or a faster one, by slot."""
        device, host, storage = (tier.bits for tier in self._tiers)

        def nearer(block: int, no: int) -> int:
            return device.get(block, no) | host.get(block, no)

        def any_tier(block: int, no: int) -> int:
            return nearer(block, no) | storage.get(block, no)

        held = runs(device.get, blocks, self._slots)
        in_memory = runs(nearer, blocks, self._slots) if host else held
        return [held, in_memory, runs(any_tier, blocks, self._slots) if storage else in_memory]

    def _best_slots(self, keys: Sequence[str], value: Lengths) -> list[int]:
        """Each engine's slot: of several ranks, the one with the most; -1 for none."""
        first, many = self._first_slot, self._with_ranks
        slots = [first.get(key, -1) for key in keys]
        if many:
            for at, key in enumerate(keys):
                if key in many:
                    slots[at] = max((row.slot for row in self._rows[key].values()), key=lambda each: float(value[each]))
        return slots

    def _block_sizes(self, keys: Sequence[str]) -> Collection[int]:
        """Of the engines asked about; nearly always there is one size."""
        if self._sizes is None:
            self._sizes = {row.block_size for rows in self._rows.values() for row in rows.values()} - {0}
        if len(self._sizes) < 2:
            return self._sizes
        return {row.block_size for key in keys for row in self._rows.get(key, {}).values()} - {0}

    def _rank_for(self, request: RequestView, engine: str) -> Row | None:
        rows = self._rows.get(engine)
        if not rows:
            return None
        if len(rows) == 1:
            return next(iter(rows.values()))
        best = self.best_rank(request, engine)
        return rows[best] if best is not None else rows[min(rows)]

    def _row(self, engine: str, rank: int) -> Row:
        rows = self._rows.setdefault(engine, {})
        row = rows.get(rank)
        if row is None:
            slot = self._slots.take()
            row = rows[rank] = Row(slot, self._tiers, self._hasher, self._settings.engine_blocks_max, self.counts)
            self._first_slot.setdefault(engine, slot)
            if len(rows) > 1:
                self._with_ranks.add(engine)
        return row

    def _root(self, adapter: str) -> int:
        root = self._roots.get(adapter)
        if root is None:
            if len(self._roots) > 10_000:
                self._roots.clear()
            root = self._roots[adapter] = self._hasher.root("adapter", adapter)
        return root

    def check(self) -> None:
        """Assert that bits and rows say the same."""
        for tier, presence in enumerate(self._tiers):
            held = {
                (block, row.slot)
                for rows in self._rows.values()
                for row in rows.values()
                for block in row.held[tier].values()
            }
            marked = {
                (block, slot)
                for block, bits in presence.bits.items()
                for slot in range(bits.bit_length())
                if bits >> slot & 1
            }
            assert held == marked, f"tier {tier}: {len(held ^ marked)} entries differ"
        self._credit.check()

    def __repr__(self) -> str:
        return f"ExactIndex({len(self._rows)} engines, {self.entries} blocks)"
