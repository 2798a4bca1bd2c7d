"""Live load per engine: this replica's own work counted at once, the other replicas' as they tell it. Pure.

Load that is only polled makes every replica choose the same idle engine until the next poll. So own requests count
from the moment an engine is chosen, and peers push theirs (`hekla.routing.gossip`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple, Self


class Counts(NamedTuple):
    """One replica's work on one engine."""

    requests: int = 0
    """In flight."""
    prefill_tokens: int = 0
    """Prompt tokens (estimated) of requests without a first token."""
    streaming: int = 0
    """Requests that are past their first token."""


class EngineLoad:
    """All that is known about an engine's load now."""

    __slots__ = ("engine_waiting", "own", "peers", "running", "suspect_until_s")

    def __init__(self) -> None:
        self.own = Counts()
        self.peers = Counts()
        self.running: int | None = None
        """Requests the engine itself reports as running; None while unknown."""
        self.engine_waiting: int | None = None
        """Requests the engine itself reports as waiting; None while unknown."""
        self.suspect_until_s = float("-inf")
        """It refused a connection: avoid it until this monotonic time."""

    @property
    def requests(self) -> int:
        return self.own.requests + self.peers.requests

    @property
    def prefill_tokens(self) -> int:
        return self.own.prefill_tokens + self.peers.prefill_tokens

    @property
    def streaming(self) -> int:
        return self.own.streaming + self.peers.streaming

    def __repr__(self) -> str:
        return f"EngineLoad(own={tuple(self.own)}, peers={tuple(self.peers)}, running={self.running})"


class Ticket:
    """One request on one engine, from choice to end; a context manager. Every call after `end` does nothing."""

    __slots__ = ("_book", "_ended", "_engine", "_streaming", "_tokens")

    def __init__(self, book: LoadBook, engine: str, tokens: int) -> None:
        self._book, self._engine, self._tokens = book, engine, tokens
        self._streaming = self._ended = False
        book.add(engine, Counts(1, tokens, 0))

    def first_token(self) -> None:
        if not self._streaming and not self._ended:
            self._streaming = True
            self._book.add(self._engine, Counts(0, -self._tokens, 1))

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            left = Counts(-1, 0, -1) if self._streaming else Counts(-1, -self._tokens, 0)
            self._book.add(self._engine, left)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


@dataclass
class _PeerEntry:
    counts: Counts
    sequence: int
    heard_s: float


class LoadBook:
    """The load of every engine, by engine key."""

    def __init__(self) -> None:
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
            found = self._loads[engine] = EngineLoad()
        return found

    def begin(self, engine: str, tokens: int) -> Ticket:
        """Count a request of about `tokens` prompt tokens to prefill on `engine` until the ticket ends."""
        return Ticket(self, engine, tokens)

    def add(self, engine: str, delta: Counts) -> None:
        load = self.load(engine)
        own = load.own
        load.own = Counts(own[0] + delta[0], own[1] + delta[1], own[2] + delta[2])
        self.changed.add(engine)

    def own(self) -> dict[str, Counts]:
        """Own counts that are not zero."""
        return {engine: load.own for engine, load in self._loads.items() if load.own != (0, 0, 0)}

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

    def forget(self, known: set[str]) -> None:
        """From now on these engines are in the table: drop all others that have no work, now and as it ends."""
        self._known = known
        self._drop_unknown()

    def _drop_unknown(self) -> None:
        told = {engine for _, engine in self._peers}
        for engine in [e for e, load in self._loads.items() if e not in self._known and e not in told]:
            if self._loads[engine].own == (0, 0, 0):
                del self._loads[engine]

    def _shift(self, engine: str, old: Counts, new: Counts) -> None:
        load = self.load(engine)
        p = load.peers
        load.peers = Counts(p[0] + new[0] - old[0], p[1] + new[1] - old[1], p[2] + new[2] - old[2])

    def check(self) -> None:
        """Invariants: nothing negative, and peers' sums equal their entries."""
        for engine, load in self._loads.items():
            assert min(load.own) >= 0, f"{engine}: own {load.own}"
            said = [entry.counts for (_, key), entry in self._peers.items() if key == engine]
            assert load.peers == tuple(map(sum, zip(Counts(), *said, strict=True))), f"{engine}: peers {load.peers}"
