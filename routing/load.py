"""Live load per engine: this replica's own work counted at once, the other replicas' as they tell it. Pure.

Load that is only polled makes every replica choose the same idle engine until the next poll. So own requests count
from the moment an engine is chosen, and peers push theirs (`hekla.routing.gossip`).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from hekla.routing import load_columns as col
from hekla.routing.load_columns import LoadColumns, Vector


class Counts(NamedTuple):
    """One replica's work on one engine."""

    requests: int = 0
    """In flight."""
    prefill_tokens: int = 0
    """Prompt tokens of requests without a first token that the engine must compute: those in its cache are not counted."""
    streaming: int = 0
    """Requests that are past their first token."""
    context_tokens: int = 0
    """Tokens that requests in flight attend to: their prompts, cached or not, and what has been generated."""
    kv_tokens: int = 0
    """Tokens of KV cache they hold, a prefix that several share counted once."""

    def plus(self, other: Counts) -> Counts:
        return Counts(
            self[0] + other[0], self[1] + other[1], self[2] + other[2], self[3] + other[3], self[4] + other[4]
        )

    def minus(self, other: Counts) -> Counts:
        return Counts(
            self[0] - other[0], self[1] - other[1], self[2] - other[2], self[3] - other[3], self[4] - other[4]
        )


NOTHING = Counts()


class AdapterState(NamedTuple):
    """LoRA adapters as the engine reports them."""

    active: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    slots: int = 0
    """How many it can run at once; 0 while unknown."""


class EngineLoad:
    """All that is known about an engine's load now. What is set here is seen by the next decision."""

    __slots__ = ("_columns", "_own", "_peers", "adapters", "row")

    def __init__(self, columns: LoadColumns | None = None) -> None:
        self._columns = columns if columns is not None else LoadColumns()
        self.row = self._columns.take()
        self._own = self._peers = NOTHING
        self.adapters: AdapterState | None = None

    @property
    def own(self) -> Counts:
        return self._own

    @own.setter
    def own(self, counts: Counts) -> None:
        self._own = counts
        self._write()

    @property
    def peers(self) -> Counts:
        return self._peers

    @peers.setter
    def peers(self, counts: Counts) -> None:
        self._peers = counts
        self._write()

    def _write(self) -> None:
        self._columns.table[: col.KV + 1, self.row] = self._own.plus(self._peers)

    @property
    def requests(self) -> int:
        return self._own.requests + self._peers.requests

    @property
    def prefill_tokens(self) -> int:
        return self._own.prefill_tokens + self._peers.prefill_tokens

    @property
    def streaming(self) -> int:
        return self._own.streaming + self._peers.streaming

    @property
    def context_tokens(self) -> int:
        return self._own.context_tokens + self._peers.context_tokens

    @property
    def kv_tokens(self) -> int:
        return self._own.kv_tokens + self._peers.kv_tokens

    @property
    def running(self) -> int | None:
        """Requests the engine itself reports as running; None while unknown."""
        return self._count(col.RUNNING)

    @running.setter
    def running(self, count: int | None) -> None:
        self._set(col.RUNNING, count)

    @property
    def engine_waiting(self) -> int | None:
        """Requests the engine itself reports as waiting; None while unknown."""
        return self._count(col.WAITING)

    @engine_waiting.setter
    def engine_waiting(self, count: int | None) -> None:
        self._set(col.WAITING, count)

    @property
    def kv_usage(self) -> float | None:
        """Share of its KV cache that the engine itself reports as used; None while unknown."""
        return self._number(col.KV_USAGE)

    @kv_usage.setter
    def kv_usage(self, share: float | None) -> None:
        self._set(col.KV_USAGE, share)

    @property
    def ttft_s(self) -> float | None:
        """Its recent mean time to first token, in seconds; None while unknown."""
        return self._number(col.TTFT_S)

    @ttft_s.setter
    def ttft_s(self, seconds: float | None) -> None:
        self._set(col.TTFT_S, seconds)

    @property
    def tpot_s(self) -> float | None:
        """Its recent mean time per output token after the first, in seconds; None while unknown."""
        return self._number(col.TPOT_S)

    @tpot_s.setter
    def tpot_s(self, seconds: float | None) -> None:
        self._set(col.TPOT_S, seconds)

    @property
    def suspect_until_s(self) -> float:
        """It refused a connection: avoid it until this monotonic time."""
        return float(self._columns.table[col.SUSPECT_UNTIL_S, self.row])

    @suspect_until_s.setter
    def suspect_until_s(self, until_s: float) -> None:
        self._set(col.SUSPECT_UNTIL_S, until_s)

    @property
    def ejected(self) -> bool:
        """Its circuit is open: it failed too often lately."""
        return bool(self._columns.table[col.EJECTED, self.row])

    @ejected.setter
    def ejected(self, is_ejected: bool) -> None:
        self._set(col.EJECTED, float(is_ejected))

    @property
    def warmup_share(self) -> float:
        """In (0, 1]: of a full engine's traffic, what one that has just come should get."""
        return float(self._columns.table[col.WARMUP_SHARE, self.row])

    @warmup_share.setter
    def warmup_share(self, share: float) -> None:
        self._set(col.WARMUP_SHARE, share)

    def set_head(self, tokens: float, since_s: float) -> None:
        """The prefill it works on now: how many tokens, and since when."""
        self._columns.table[col.HEAD_TOKENS, self.row] = tokens
        self._columns.table[col.HEAD_SINCE_S, self.row] = since_s

    def set_foreign(self, running: int, waiting: int) -> None:
        """What the engine reports now beyond what is known of here: requests that came past the ingress."""
        beyond = max(running + waiting - self.requests, 0)
        self._columns.table[col.FOREIGN, self.row] = beyond
        self._columns.table[col.FOREIGN_WAITING, self.row] = min(beyond, waiting)

    def set_memory(self, kv_usage: float | None) -> None:
        """What it reports now of its KV cache, beside what is counted now: prefixes shared among replicas count twice.

        A lone replica's own count is exact and newer than any report.
        """
        self.kv_usage = kv_usage
        self._columns.table[col.KV_AT_REPORT, self.row] = self.kv_tokens if self._peers.kv_tokens else col.UNKNOWN

    @property
    def vector(self) -> Vector:
        """Its row, by column."""
        return self._columns.table[:, self.row]

    def detach(self) -> None:
        """Gives its row back and keeps what it knows: whoever still holds it can't touch the row's next engine."""
        alone = LoadColumns()
        alone.table[:, 0] = self.vector
        self._columns.give_back(self.row)
        self._columns, self.row = alone, 0

    def is_of(self, columns: LoadColumns) -> bool:
        return self._columns is columns

    def _set(self, column: int, value: float | None) -> None:
        self._columns.table[column, self.row] = col.UNKNOWN if value is None else value

    def _number(self, column: int) -> float | None:
        value = float(self._columns.table[column, self.row])
        return None if math.isnan(value) else value

    def _count(self, column: int) -> int | None:
        value = self._number(column)
        return None if value is None else int(value)

    def __repr__(self) -> str:
        return f"EngineLoad(own={tuple(self.own)}, peers={tuple(self.peers)}, running={self.running})"


@dataclass
class _PeerEntry:
    counts: Counts
    sequence: int
    heard_s: float


class LoadBook:
    """The load of every engine, by engine key."""

    def __init__(self) -> None:
        self.columns = LoadColumns(64)
        self._loads: dict[str, EngineLoad] = {}
        self._peers: dict[tuple[str, str], _PeerEntry] = {}
        self._known: set[str] = set()
        self.changed: set[str] = set()
        """Engines whose own counts changed since the gossip last took them."""

    @property
    def engines(self) -> Collection[str]:
        """Those of which anything is remembered."""
        return self._loads.keys()

    def load(self, engine: str) -> EngineLoad:
        """The live object: keep it, it stays current."""
        found = self._loads.get(engine)
        if found is None:
            found = self._loads[engine] = EngineLoad(self.columns)
        return found

    def add(self, engine: str, delta: Counts) -> None:
        """Own work on the engine has changed by so much (`hekla.routing.scheduling.dispatch.Trip`)."""
        load = self.load(engine)
        load.own = load.own.plus(delta)
        self.changed.add(engine)

    def own(self) -> dict[str, Counts]:
        """Own counts that are not zero."""
        return {engine: load.own for engine, load in self._loads.items() if load.own != NOTHING}

    def apply_peer(self, peer: str, sequence: int, counts: dict[str, Counts], *, now_s: float) -> None:
        """What a peer said about some engines; older news than what is known is ignored."""
        for engine, fresh in counts.items():
            entry = self._peers.get((peer, engine))
            if entry is not None and sequence <= entry.sequence:
                continue
            self._peers[(peer, engine)] = _PeerEntry(fresh, sequence, now_s)
            self._shift(engine, entry.counts if entry else Counts(), fresh)

    def expire(self, before_s: float) -> None:
        """Forget what peers have not repeated since `before_s`, and with it engines that only they knew."""
        silent = [key for key, entry in self._peers.items() if entry.heard_s < before_s]
        for key in silent:
            self._shift(key[1], self._peers.pop(key).counts, Counts())
        self._drop_unknown()

    def report(self, engine: str, running: int | None, waiting: int | None) -> None:
        """What the engine itself says; None: it does not, or too long ago. Ignored for engines not in the table."""
        if engine in self._known:
            load = self.load(engine)
            load.running, load.engine_waiting = running, waiting
            load.set_foreign(running or 0, waiting or 0)

    def report_memory(self, engine: str, kv_usage: float | None, adapters: AdapterState | None) -> None:
        """What the engine itself says of its KV cache and its adapters; None: it does not, or too long ago."""
        if engine in self._known:
            load = self.load(engine)
            load.adapters = adapters
            load.set_memory(kv_usage)

    def forget(self, known: set[str]) -> None:
        """From now on these engines are in the table: drop all others that have no work, now and as it ends."""
        self._known = known
        self._drop_unknown()

    def _drop_unknown(self) -> None:
        told = {engine for _, engine in self._peers}
        for engine in [e for e, load in self._loads.items() if e not in self._known and e not in told]:
            if self._loads[engine].own == NOTHING:
                self._loads.pop(engine).detach()

    def _shift(self, engine: str, old: Counts, new: Counts) -> None:
        load = self.load(engine)
        load.peers = load.peers.plus(new).minus(old)

    def check(self) -> None:
        """Invariants: nothing negative, and peers' sums equal their entries."""
        for engine, load in self._loads.items():
            assert min(load.own) >= 0, f"{engine}: own {load.own}"
            said = [entry.counts for (_, key), entry in self._peers.items() if key == engine]
            assert load.peers == tuple(map(sum, zip(Counts(), *said, strict=True))), f"{engine}: peers {load.peers}"
