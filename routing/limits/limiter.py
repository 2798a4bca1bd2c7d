"""Takes what a request needs from every limit that holds for it, or nothing from any. Pure.

Input must fit what is left. Output can't be known: a request goes when anything is left, its estimate is taken at once
(so that a thousand requests at the same moment don't all see the same rest), and the truth replaces it at the end. What
was too much is owed, and flows back before anyone goes again. So over time a limit is kept exactly, and a moment's
overdraft is at most the outputs in flight.

No bucket has a lifecycle: rules are read for each request, a bucket is found by its rule's name and takes over the
rule's present numbers. A changed limit holds from the next request on and keeps what was used; a removed one is no
longer asked; one that comes back meanwhile still knows.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hekla.routing.limits.bucket import Bucket
from hekla.routing.limits.rules import Amount, Asking, Limit, limits_of
from hekla.routing.limits.settings import LimitRule, RateLimitSettings

SWEEP = 64
"""Buckets looked at when there are too many: a step, not a pause."""


class Exceeded(Exception):
    """`retry_after_s` is None when waiting does not help."""

    def __init__(self, limit: Limit, wanted: int, retry_after_s: int | None) -> None:
        self.limit, self.retry_after_s = limit, retry_after_s
        noun = limit.kind.replace("_", " ")
        allowed = f"the limit {limit.rule!r} allows {limit.amount} {noun} per {limit.unit}"
        if retry_after_s is None:
            super().__init__(f"the prompt has about {wanted} tokens, but {allowed}: it can never be served")
        else:
            super().__init__(f"{allowed}, and they are used up; try again in {retry_after_s} s")


@dataclass(frozen=True, slots=True)
class Standing:
    """How one limit stands now, as far as this replica may use it."""

    limit: Limit
    capacity: float
    """This replica's share of the limit."""
    left: float
    """Negative: owed."""
    reset_s: float
    """Until all of it is back."""

    def explain(self) -> dict[str, Any]:
        limit = self.limit
        return {
            "rule": limit.rule, "kind": limit.kind, "limit": limit.amount, "unit": limit.unit,
            "share": self.capacity, "left": self.left, "reset_s": self.reset_s,
        }  # fmt: skip


@dataclass(slots=True)
class Grant:
    """What one request has taken. Ends once, by `settle` or `refund`."""

    taken: list[tuple[Limit, float]]
    is_over: bool = False


def whole() -> float:
    return 1.0


class Limiter:
    """`share` tells which part of every limit this replica may use now, in (0, 1]."""

    def __init__(
        self, settings: RateLimitSettings, *, share: Callable[[], float] = whole,
        used_elsewhere: Callable[[str, float, float], float] = lambda key, rate, now_s: 0.0,
        on_taken: Callable[[str, float], None] = lambda key, amount: None,
    ) -> None:  # fmt: skip
        self.rules: tuple[LimitRule, ...] = settings.rules
        """Replace them at any time."""
        self._settings, self._share, self._used_elsewhere, self._on_taken = settings, share, used_elsewhere, on_taken
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def use(self, settings: RateLimitSettings) -> None:
        """Other rules from the next request on; what was used stays used."""
        self._settings, self.rules = settings, settings.rules

    def take(self, asking: Asking, now_s: float, *, route: LimitRule | None = None) -> Grant:
        """Raises Exceeded, and has taken nothing then."""
        rules: Sequence[LimitRule] = self.rules if route is None else (*self.rules, route)
        if not rules:
            return Grant([])
        found = [(limit, self._bucket(limit, now_s)) for limit in limits_of(rules, asking)]
        for limit, bucket in found:
            self._check(limit, bucket, asking, now_s)
        grant = Grant([(limit, asking.amount(limit.kind)) for limit, _ in found])
        for limit, amount in grant.taken:
            self._move(limit.key, amount, now_s)
        return grant

    def standing(self, asking: Asking, now_s: float, *, route: LimitRule | None = None) -> list[Standing]:
        """How every limit stands that holds for the request, which takes nothing."""
        rules: Sequence[LimitRule] = self.rules if route is None else (*self.rules, route)
        if not rules:
            return []
        found = [(limit, self._bucket(limit, now_s)) for limit in limits_of(rules, asking)]
        return [
            Standing(limit, bucket.capacity, bucket.left(now_s), bucket.used / bucket.rate if bucket.rate else 0.0)
            for limit, bucket in found
        ]

    def explain(self, now_s: float, count_max: int) -> list[dict[str, Any]]:
        """The budgets asked for last, latest first."""
        told = []
        for key, bucket in itertools.islice(reversed(self._buckets.items()), count_max):
            rule, kind, values = key.split("\x1e", 2)
            left = bucket.left(now_s)
            told.append({
                "rule": rule, "kind": kind, "of": values.split("\x1f"), "capacity": bucket.capacity,
                "window_s": bucket.window_s, "left": left,
            })  # fmt: skip
        return told

    def settle(self, grant: Grant, input_tokens: int, output_tokens: int, now_s: float) -> None:
        """The request has ended and these were its tokens."""
        if grant.is_over:
            return
        grant.is_over = True
        actual: dict[Amount, int] = {"requests": 1, "input_tokens": input_tokens, "output_tokens": output_tokens}
        for limit, amount in grant.taken:
            self._move(limit.key, actual[limit.kind] - amount, now_s)

    def refund(self, grant: Grant, now_s: float) -> None:
        """No engine has seen the request: it takes nothing, not even its count."""
        if not grant.is_over:
            grant.is_over = True
            for limit, amount in grant.taken:
                self._move(limit.key, -amount, now_s)

    def taken_elsewhere(self, key: str, amount: float, now_s: float) -> None:
        """Another replica has taken this much."""
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.take(amount, now_s)

    def at_least_used(self, key: str, used: float, now_s: float) -> None:
        """Another replica knows that so much is used."""
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.refresh(now_s)
            bucket.used = max(bucket.used, used)

    def used(self, key: str, now_s: float) -> float:
        bucket = self._buckets.get(key)
        if bucket is None:
            return 0.0
        bucket.refresh(now_s)
        return bucket.used

    def _check(self, limit: Limit, bucket: Bucket, asking: Asking, now_s: float) -> None:
        wanted = asking.amount(limit.kind)
        if limit.kind == "input_tokens" and wanted > limit.amount:
            raise Exceeded(limit, wanted, None)
        # Of a cut limit a prompt may need more than the whole share: it goes when the share is untouched.
        needed = min(wanted, bucket.capacity) if limit.kind != "output_tokens" else min(1.0, bucket.capacity)
        wait_s = bucket.wait_s(needed, now_s)
        if wait_s > 0:
            raise Exceeded(limit, wanted, max(1, math.ceil(wait_s)))

    def _bucket(self, limit: Limit, now_s: float) -> Bucket:
        capacity = limit.amount * self._share()
        bucket = self._buckets.get(limit.key)
        if bucket is None:
            if len(self._buckets) >= self._settings.buckets_max:
                self._forget(now_s)
            bucket = self._buckets[limit.key] = Bucket(capacity, limit.window_s, now_s)
            bucket.used = self._used_elsewhere(limit.key, bucket.rate, now_s)
        else:
            self._buckets.move_to_end(limit.key)
            bucket.set_limit(capacity, limit.window_s, now_s)
        return bucket

    def _move(self, key: str, amount: float, now_s: float) -> None:
        bucket = self._buckets.get(key)
        if bucket is not None and amount:
            bucket.take(amount, now_s)
            self._on_taken(key, amount)

    def _forget(self, now_s: float) -> None:
        """Of the oldest, those of which nothing is used; if there is none, the oldest."""
        oldest = [key for key, _ in zip(self._buckets, range(SWEEP), strict=False)]
        unused = [key for key in oldest if self._buckets[key].left(now_s) >= self._buckets[key].capacity]
        for key in unused or oldest[:1]:
            del self._buckets[key]

    def __repr__(self) -> str:
        return f"Limiter(rules={len(self.rules)}, buckets={len(self._buckets)})"
