"""How fast a queue has drained of late. Pure."""

from __future__ import annotations

import math

TAU_S = 10.0
"""Older admissions count e-fold less: long enough to see several requests end, short enough to follow a lost engine."""


class DrainRate:
    """Admitted cost per second of the time in which something waited: an idle queue says nothing of capacity."""

    __slots__ = ("_busy_s", "_cost", "_seen_s")

    def __init__(self) -> None:
        self._cost = self._busy_s = 0.0
        self._seen_s: float | None = None

    def pass_time(self, now_s: float, *, is_backlogged: bool) -> None:
        """Time since the last call was spent with a backlog, or was not."""
        if self._seen_s is not None and is_backlogged and now_s > self._seen_s:
            elapsed = now_s - self._seen_s
            decay = math.exp(-elapsed / TAU_S)
            self._cost *= decay
            self._busy_s = self._busy_s * decay + TAU_S * (1.0 - decay)
        self._seen_s = now_s

    def admit(self, cost: float) -> None:
        self._cost += cost

    def seconds_for(self, cost: float) -> float | None:
        """How long this much takes at the rate of late; None while nothing has been admitted from a backlog."""
        if self._cost <= 0 or self._busy_s <= 0:
            return None
        return cost * self._busy_s / self._cost
