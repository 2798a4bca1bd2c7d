"""What was spent of each budget: by this replica, as it happens, and by the others, as they last told. Pure.

Each replica counts only what it served and publishes that number under its own name in the `status.usage` of the Tenant
or ApiKey; the sum over all names is what was spent (a grow-only counter). A number that is sent twice, late or out of
order does no harm, and what a replica that is gone had spent stays spent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, get_args

from hekla.platform.api.meta import Json
from hekla.routing.identity.interface import Budget, Caller, Subject, Window
from hekla.routing.identity.settings import Price
from hekla.routing.identity.windows import window_at
from hekla.routing.usage import Usage

WINDOWS: tuple[Window, ...] = get_args(Window)
NANOS_PER_TOKEN = 1000
"""A price of 1 for a million tokens is a thousand billionths for one."""


@dataclass(slots=True)
class Spent:
    """In the window that began at `begin_s` (Unix)."""

    begin_s: int
    tokens: int = 0
    nanos: int = 0

    def to_json(self) -> Json:
        return {"from": self.begin_s, "tokens": self.tokens, "nanos": self.nanos}


def cost_nanos(usage: Usage, price: Price | None) -> int:
    """What a request cost, in billionths."""
    if price is None:
        return 0
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    cached_price = price.input if price.cached is None else price.cached
    amount = (
        (usage.prompt_tokens - cached) * price.input + cached * cached_price + usage.completion_tokens * price.output
    )
    return round(amount * NANOS_PER_TOKEN)


class Ledger:
    """`replica` is this replica's name, never used before."""

    def __init__(self, replica: str) -> None:
        self.replica = replica
        self._own: dict[Subject, dict[str, Spent]] = {}
        self._others: dict[Subject, dict[str, list[Spent]]] = {}
        self._outdated: dict[Subject, list[str]] = {}
        self._untold: set[Subject] = set()
        self._window: dict[Window, tuple[int, int]] = {}

    def exceeded(self, caller: Caller, model: str, now_s: float) -> tuple[Budget, int] | None:
        """The first budget that is spent and when it begins anew (Unix seconds), None when there is none."""
        for budget in caller.budgets:
            if budget.counts(model):
                begin_s, end_s = self._window_at(budget.window, now_s)
                spent = self.spent(budget, begin_s)
                if _is_over(spent.tokens, budget.tokens) or _is_over(spent.nanos, budget.nanos):
                    return budget, end_s
        return None

    def spent(self, budget: Budget, begin_s: int) -> Spent:
        """By all replicas, in the window that began at `begin_s`."""
        total = Spent(begin_s)
        own = self._own.get(budget.subject, {}).get(budget.key)
        for part in (*([own] if own else ()), *self._others.get(budget.subject, {}).get(budget.key, ())):
            if part.begin_s == begin_s:
                total.tokens += part.tokens
                total.nanos += part.nanos
        return total

    def charge(self, caller: Caller, model: str, usage: Usage, price: Price | None, now_s: float) -> None:
        """Count a finished request. It belongs to the window in which it ended."""
        for budget in caller.budgets:
            if budget.counts(model):
                begin_s, _ = self._window_at(budget.window, now_s)
                kept = self._own.setdefault(budget.subject, {})
                own = kept.get(budget.key)
                if own is None or own.begin_s != begin_s:
                    own = kept[budget.key] = Spent(begin_s)
                own.tokens += usage.prompt_tokens + usage.completion_tokens
                own.nanos += cost_nanos(usage, price)
                self._untold.add(budget.subject)

    def learn(self, usages: Mapping[Subject, Any], now_s: float) -> None:
        """What Tenants and ApiKeys have in `status.usage`, all of them. What can't be read counts as nothing."""
        begins = {window: self._window_at(window, now_s)[0] for window in WINDOWS}
        self._others, self._outdated = {}, {}
        for subject, usage in usages.items():
            for replica, entries in usage.items() if isinstance(usage, Mapping) else ():
                if replica != self.replica:
                    self._learn_of(subject, replica, dict(_read(entries)), begins)
            own = self._own.get(subject)
            if own and (not isinstance(usage, Mapping) or dict(_read(usage.get(self.replica))) != own):
                self._untold.add(subject)  # not there yet, or removed by one who took it for outdated
        for subject in self._own.keys() - usages.keys():
            del self._own[subject]  # the object is gone, and its budgets with it
            self._untold.discard(subject)

    def _learn_of(
        self, subject: Subject, replica: str, entries: Mapping[str, Spent], begins: Mapping[Any, int]
    ) -> None:
        # A replica whose clock is ahead may be in the next window already.
        live = {key: spent for key, spent in entries.items() if spent.begin_s >= begins.get(_window_of(key), inf)}
        for key, spent in live.items():
            self._others.setdefault(subject, {}).setdefault(key, []).append(spent)
        if not live:
            self._outdated.setdefault(subject, []).append(replica)

    @property
    def known(self) -> frozenset[str]:
        """Subjects of which other replicas have told something, as text."""
        return frozenset(str(subject) for subject in self._others)

    def untold(self) -> dict[Subject, Json]:
        """`status.usage` as a merge patch, of every subject with news. Entries of windows that are over are removed."""
        return {
            subject: {
                self.replica: {key: spent.to_json() for key, spent in self._own.get(subject, {}).items()},
                **dict.fromkeys(self._outdated.get(subject, ())),
            }
            for subject in self._untold
        }

    def told(self, subject: Subject) -> None:
        """What `untold` said of it is going out; what comes after is news again."""
        self._untold.discard(subject)

    def failed(self, subject: Subject) -> None:
        """It did not arrive."""
        if subject in self._own:
            self._untold.add(subject)

    def _window_at(self, window: Window, now_s: float) -> tuple[int, int]:
        known = self._window.get(window)
        if known is None or not known[0] <= now_s < known[1]:
            known = self._window[window] = window_at(window, now_s)
        return known

    def __repr__(self) -> str:
        return f"Ledger({self.replica!r}, subjects={len(self._own)}, untold={len(self._untold)})"


def _is_over(spent: int, limit: int | None) -> bool:
    return limit is not None and spent >= limit


def _window_of(key: str) -> Any:
    return key.partition(":")[0]


def _read(entries: Any) -> Iterator[tuple[str, Spent]]:
    for key, entry in entries.items() if isinstance(entries, Mapping) else ():
        if isinstance(entry, Mapping):
            numbers = [entry.get(name) for name in ("from", "tokens", "nanos")]
            if all(isinstance(number, int) and number >= 0 for number in numbers):
                yield key, Spent(*numbers)  # type: ignore[arg-type]  # just checked
