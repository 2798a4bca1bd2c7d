"""A token bucket that can owe. Pure.

It holds what is *used* rather than what is left: a limit that is changed then keeps what was used, a replica's share of
it is only another capacity, and what other replicas took is added to it.
"""

from __future__ import annotations

import math

ROUNDING = 1e-9
"""Part of a limit that sums of fractions may be wrong by: a window that is over has given all back."""


class Bucket:
    """`capacity` per `window_s`; what was used flows back at that rate, to nothing used."""

    __slots__ = ("at_s", "capacity", "used", "window_s")

    def __init__(self, capacity: float, window_s: float, now_s: float) -> None:
        self.capacity, self.window_s = capacity, window_s
        self.used, self.at_s = 0.0, now_s

    @property
    def rate(self) -> float:
        """What flows back per second."""
        return self.capacity / self.window_s

    def refresh(self, now_s: float) -> None:
        if now_s > self.at_s:
            self.used = max(0.0, self.used - (now_s - self.at_s) * self.rate)
            self.at_s = now_s

    def set_limit(self, capacity: float, window_s: float, now_s: float) -> None:
        """Another limit from now on; what was used stays used."""
        if (capacity, window_s) != (self.capacity, self.window_s):
            self.refresh(now_s)
            self.capacity, self.window_s = capacity, window_s

    def left(self, now_s: float) -> float:
        """What may still be taken; negative: owed."""
        self.refresh(now_s)
        return self.capacity - self.used

    def take(self, amount: float, now_s: float) -> None:
        """Take it whatever is left; a negative amount gives back."""
        self.refresh(now_s)
        self.used = max(0.0, self.used + amount)

    def wait_s(self, amount: float, now_s: float) -> float:
        """Seconds until so much is left; infinite when it is above the whole limit."""
        if amount > self.capacity:
            return math.inf
        missing = amount - self.left(now_s)
        return missing / self.rate if missing > ROUNDING * self.capacity else 0.0

    def __repr__(self) -> str:
        return f"Bucket(used={self.used:g} of {self.capacity:g} per {self.window_s:g} s)"
