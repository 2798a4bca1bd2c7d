"""How much each adapter is asked for: counts of requests in, smoothed rates out. Pure.

An exponentially weighted mean with a time constant rather than a factor per tick, so that reports may come at any
time: a rate decays by `exp(-t / TIME_CONSTANT_S)` and each request adds `1 / TIME_CONSTANT_S`. A constant stream of λ
requests a second is shown as λ; a burst of n is shown as n / TIME_CONSTANT_S and forgotten as fast.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hekla.deployments.lora.model import Demand

TIME_CONSTANT_S = 60.0
"""A minute: long beside the seconds that a load takes, short beside the hours of a day's pattern."""
IDLE_RATE = 0.05 / TIME_CONSTANT_S
"""Below it an adapter is not asked for: three minutes after its last single request."""
WAITING_S = 10.0
"""A report that requests wait for an adapter counts this long; it is repeated while they do."""
REPLICAS_MAX = 256
"""Ingress replicas whose reports are remembered; the one silent longest is forgotten first."""


@dataclass(frozen=True)
class DemandReport:
    """What one ingress replica says."""

    counts: Mapping[str, int]
    """Requests by adapter since the replica started; the base model's under the empty name."""
    waiting: tuple[str, ...] = ()


@dataclass
class _Rate:
    value: float = 0.0
    at_s: float = 0.0

    def decayed(self, now_s: float) -> float:
        return self.value * math.exp(-max(0.0, now_s - self.at_s) / TIME_CONSTANT_S)

    def add(self, count: int, now_s: float) -> None:
        self.value = self.decayed(now_s) + count / TIME_CONSTANT_S
        self.at_s = now_s


@dataclass
class DemandMeter:
    """One ModelServer's. `take` is given each ingress replica's latest report as often as anybody likes."""

    _counts: dict[str, Mapping[str, int]] = field(default_factory=dict)
    _rates: dict[str, _Rate] = field(default_factory=dict)
    _waiting: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By adapter: since when it is waited for, and until when that counts."""
    _marks: dict[str, str] = field(default_factory=dict)
    """By replica: what its last report that named waiting requests was marked with."""

    def take(
        self, replica: str, report: DemandReport, now_s: float, *, mark: str = "", fresh: bool = True,
        counts_all: bool = True,
    ) -> None:  # fmt: skip
        """`mark` tells one report from the next; `fresh` False: it is old news, kept by the store while we were away.

        `counts_all` False: of a replica not heard of before, what it counted earlier is not counted as new.
        """
        before = self._counts.pop(replica, None)
        if before is None and not counts_all:
            before = report.counts
        for name, count in report.counts.items():
            grown = count - (before or {}).get(name, 0)
            if grown > 0:
                self._rates.setdefault(name, _Rate()).add(grown, now_s)
        self._counts[replica] = dict(report.counts)
        if len(self._counts) > REPLICAS_MAX:
            del self._counts[next(iter(self._counts))]
        if fresh and self._marks.get(replica) != mark:
            self._marks[replica] = mark
            self._forget_waiting(now_s)
            for name in report.waiting:
                since_s, _ = self._waiting.get(name, (now_s, 0.0))
                self._waiting[name] = (since_s, now_s + WAITING_S)

    def demand(self, names: Iterable[str], now_s: float) -> Demand:
        """What is asked of these adapters now; those of other names count for the total alone."""
        rates = {name: rate.decayed(now_s) for name, rate in self._rates.items()}
        self._forget_waiting(now_s)
        known = set(names)
        return Demand(
            rates={name: value for name, value in rates.items() if name in known and value >= IDLE_RATE},
            total=sum(rates.values()),
            waiting={name: since_s for name, (since_s, _) in self._waiting.items() if name in known},
        )

    def served(self, names: Iterable[str]) -> None:
        """They have been loaded somewhere: who waits from now on waits anew."""
        for name in names:
            self._waiting.pop(name, None)

    def _forget_waiting(self, now_s: float) -> None:
        self._waiting = {name: times for name, times in self._waiting.items() if times[1] > now_s}

    def __repr__(self) -> str:
        return f"DemandMeter({len(self._rates)} adapters, {len(self._counts)} replicas)"
