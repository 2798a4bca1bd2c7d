"""Replicas tell each other what they have taken from shared budgets. Pure; the transport carries `Entry`s.

Each replica tells, for a budget, how much it has taken itself since it started (a number that only it changes) and how
much it thinks is used by all. The first makes news safe to lose, to repeat and to reorder: what matters is the
difference to what was heard before. The second is for who hears of the budget for the first time, and can't know how
much of a replica's total has flowed back already.

Nobody waits for an answer. Replicas that take from one budget at the same moment may overdraw it by what they take
within one round of news; it is owed then, so over any longer time the limit is kept. A replica that no longer hears
some of the others takes of every limit only the part that those it hears, and itself, are of all.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

ENTRIES_MAX = 100_000
"""Budgets remembered for each peer."""
PEERS_MAX = 256
FORGOTTEN_S = 3600.0
"""A peer silent for this long is forgotten: so long one that comes back is counted exactly, and a restarted one has
another name. A peer that comes back later is a new one, and what it took before may count twice."""


FRESH = 1.25
"""A total up to this many times what is used is news of now: between a request and its news some of it flows back."""


class Entry(NamedTuple):
    """News of one budget."""

    budget: int
    """`budget_id` of its key: short, and it tells nobody a tenant's name."""
    total: float
    """Taken by the sender since it started, less what it gave back."""
    used: float
    """What the sender thinks is used now, by all."""


class Heard(NamedTuple):
    total: float
    used: float
    at_s: float


@dataclass(slots=True)
class _Peer:
    heard_s: float
    budgets: OrderedDict[int, Heard]


def budget_id(key: str) -> int:
    """63 bits of the key's hash: two of a million budgets collide with a chance of 1 in 10^7."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1


class Ledger:
    """What this replica has taken and what it has heard; `taken` and `used_elsewhere` are the limiter's hooks."""

    def __init__(
        self, *, silence_s: float, apply: Callable[[str, float, float], None] = lambda key, amount, now_s: None,
        adopt: Callable[[str, float, float], None] = lambda key, used, now_s: None,
        used: Callable[[str, float], float] = lambda key, now_s: 0.0,
    ) -> None:  # fmt: skip
        self._silence_s, self._apply, self._adopt, self._used = silence_s, apply, adopt, used
        self._own: OrderedDict[str, float] = OrderedDict()
        self._keys: dict[int, str] = {}
        self._peers: dict[str, _Peer] = {}
        self._changed: dict[str, None] = {}
        self._retold = 0
        self.replicas = 1
        """How many share the budgets, this one included, as far as anyone knows; the caller keeps it current."""

    def use(self, *, silence_s: float) -> None:
        self._silence_s = silence_s

    def taken(self, key: str, amount: float) -> None:
        """This replica took it; negative: gave it back."""
        self._remember(key)
        self._own[key] += amount
        self._own.move_to_end(key)
        self._changed[key] = None

    def news(self, now_s: float, count_max: int) -> list[Entry]:
        """What has changed since the last call."""
        keys = [key for key, _ in zip(self._changed, range(count_max), strict=False)]
        for key in keys:
            del self._changed[key]
        return [self._entry(key, now_s) for key in keys]

    def repeat(self, now_s: float, count_max: int) -> list[Entry]:
        """Some of everything, in turn: what was lost is told again, and newcomers hear all of it."""
        for sender in [name for name, peer in self._peers.items() if now_s - peer.heard_s > FORGOTTEN_S]:
            del self._peers[sender]
        keys = list(self._own)
        if self._retold >= len(keys):
            self._retold = 0
        part = keys[self._retold : self._retold + count_max]
        self._retold += len(part)
        return [self._entry(key, now_s) for key in part]

    def hear(self, sender: str, entries: Iterable[Entry], now_s: float) -> None:
        """A peer's news, or an empty sign of life."""
        peer = self._peers.get(sender)
        if peer is None:
            if len(self._peers) >= PEERS_MAX:
                del self._peers[min(self._peers, key=lambda name: self._peers[name].heard_s)]
            peer = self._peers[sender] = _Peer(now_s, OrderedDict())
        peer.heard_s = now_s
        for entry in entries:
            before = peer.budgets.get(entry.budget)
            peer.budgets[entry.budget] = Heard(entry.total, entry.used, now_s)
            if before is None and len(peer.budgets) > ENTRIES_MAX:
                peer.budgets.popitem(last=False)
            key = self._keys.get(entry.budget)
            if key is None:
                continue
            known = 0.0 if before is None else before.total
            if before is None and entry.total > entry.used * FRESH:
                self._adopt(key, entry.used, now_s)  # it is older than this replica: part of its total has flowed back
            elif entry.total != known:
                self._apply(key, entry.total - known, now_s)

    def used_elsewhere(self, key: str, rate: float, now_s: float) -> float:
        """For a budget asked for the first time here: what the peers think is used, less what has flowed back since."""
        budget = self._remember(key)
        told = (peer.budgets[budget] for peer in self._peers.values() if budget in peer.budgets)
        return max((heard.used - rate * (now_s - heard.at_s) for heard in told), default=0.0)

    def share(self, now_s: float) -> float:
        """The part of every limit that this replica may use, with those it hears: 1 when it hears all."""
        heard = 1 + sum(now_s - peer.heard_s <= self._silence_s for peer in self._peers.values())
        return min(1.0, heard / max(1, self.replicas))

    def _remember(self, key: str) -> int:
        budget = budget_id(key)
        if key not in self._own:
            self._own[key] = 0.0
            self._keys[budget] = key
            if len(self._own) > ENTRIES_MAX:
                oldest, _ = self._own.popitem(last=False)
                self._keys.pop(budget_id(oldest), None)
                self._changed.pop(oldest, None)
        return budget

    def _entry(self, key: str, now_s: float) -> Entry:
        return Entry(budget_id(key), self._own[key], self._used(key, now_s))

    def __repr__(self) -> str:
        return f"Ledger(budgets={len(self._own)}, peers={len(self._peers)}, replicas={self.replicas})"
