"""What became of each request, and what a run says about its policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(slots=True)
class Record:
    """One request. Times in seconds of virtual time; negative while they have not come."""

    id: int
    tenant: str
    arrived_s: float
    prompt_tokens: int
    output_tokens: int
    engine: str = ""
    sent_s: float = -1.0
    first_s: float = -1.0
    finished_s: float = -1.0
    cached_tokens: int = 0
    predicted_tokens: float = 0.0
    predicted_ttft_s: float = 0.0
    tries: int = 0
    preemptions: int = 0
    refused: str = ""
    """Why it was not served."""

    @property
    def ttft_s(self) -> float:
        return self.first_s - self.arrived_s

    @property
    def e2e_s(self) -> float:
        return self.finished_s - self.arrived_s

    @property
    def tpot_s(self) -> float:
        """Mean time per token after the first; 0 for one token."""
        return (self.finished_s - self.first_s) / (self.output_tokens - 1) if self.output_tokens > 1 else 0.0


@dataclass(frozen=True)
class Objective:
    """What a good answer is. The defaults are those most benchmarks of routers use."""

    ttft_s: float = 2.0
    tpot_s: float = 0.05

    def met(self, record: Record) -> bool:
        return record.finished_s >= 0 and record.ttft_s <= self.ttft_s and record.tpot_s <= self.tpot_s


@dataclass(frozen=True)
class Summary:
    """Shares are in [0, 1]; times in seconds.

    `throughput` and `output_tokens_s` are per second between the first arrival and the last end, `good_per_s` per second
    between first and last arrival: in an open loop it is the goodput times the offered rate.
    """

    requests: int
    served: int
    refused: int
    errors: int
    throughput: float
    output_tokens_s: float
    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p90_s: float
    ttft_p99_s: float
    tpot_mean_s: float
    tpot_p50_s: float
    tpot_p99_s: float
    e2e_mean_s: float
    e2e_p99_s: float
    goodput: float
    """Share of all requests served within the objective."""
    good_per_s: float
    hit: float
    """Share of prompt tokens found in a cache."""
    precision: float
    """1 - |predicted - actual cached tokens| / prompt tokens, mean."""
    ttft_error: float
    """Median of |predicted - actual| / actual."""
    preemptions: int
    tenants: dict[str, float] = field(default_factory=dict)
    """90th percentile of the time to first token by tenant."""


def summarise(records: Iterable[Record], objective: Objective) -> Summary:
    rows = list(records)
    served = [row for row in rows if row.finished_s >= 0]
    refused = sum(1 for row in rows if row.refused == "refused")
    good = sum(1 for row in served if objective.met(row))
    span = max((row.finished_s for row in served), default=0.0) - min((row.arrived_s for row in rows), default=0.0)
    per_s = 1 / span if span > 0 else 0.0
    arrivals_s = max((row.arrived_s for row in rows), default=0.0) - min((row.arrived_s for row in rows), default=0.0)
    ttft, tpot, e2e = (_column(served, get) for get in (_ttft, _tpot, _e2e))
    prompt = sum(row.prompt_tokens for row in served)
    return Summary(
        requests=len(rows),
        served=len(served),
        refused=refused,
        errors=len(rows) - len(served) - refused,
        throughput=len(served) * per_s,
        output_tokens_s=sum(row.output_tokens for row in served) * per_s,
        ttft_mean_s=_mean(ttft),
        ttft_p50_s=percentile(ttft, 50),
        ttft_p90_s=percentile(ttft, 90),
        ttft_p99_s=percentile(ttft, 99),
        tpot_mean_s=_mean(tpot),
        tpot_p50_s=percentile(tpot, 50),
        tpot_p99_s=percentile(tpot, 99),
        e2e_mean_s=_mean(e2e),
        e2e_p99_s=percentile(e2e, 99),
        goodput=good / len(rows) if rows else 0.0,
        good_per_s=good / arrivals_s if arrivals_s > 0 else 0.0,
        hit=sum(row.cached_tokens for row in served) / prompt if prompt else 0.0,
        precision=_mean([1 - abs(row.predicted_tokens - row.cached_tokens) / row.prompt_tokens for row in served]),
        ttft_error=percentile([abs(row.predicted_ttft_s - row.ttft_s) / max(row.ttft_s, 1e-9) for row in served], 50),
        preemptions=sum(row.preemptions for row in served),
        tenants={name: percentile(_column(group, _ttft), 90) for name, group in _by_tenant(served).items()},
    )


def _ttft(row: Record) -> float:
    return row.ttft_s


def _tpot(row: Record) -> float:
    return row.tpot_s


def _e2e(row: Record) -> float:
    return row.e2e_s


def _column(rows: Sequence[Record], get: Callable[[Record], float]) -> list[float]:
    return [get(row) for row in rows]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def percentile(values: Sequence[float], percent: float) -> float:
    """By linear interpolation; 0 of nothing."""
    return float(np.percentile(values, percent)) if values else 0.0


def _by_tenant(rows: Iterable[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for row in rows:
        if row.tenant:
            found.setdefault(row.tenant, []).append(row)
    return found


def jain(shares: Sequence[float]) -> float:
    """Jain's fairness index: 1 when all are equal, 1/n when one has everything."""
    total = sum(shares)
    return total * total / (len(shares) * sum(share * share for share in shares)) if total else 1.0


def service_gap(records: Iterable[Record], tenants: tuple[str, str], *, output_weight: float = 2.0) -> float:
    """The largest difference, at any time, of two tenants' service in uncached input + `output_weight` × output tokens."""
    gap = worst = 0.0
    done = sorted((row for row in records if row.finished_s >= 0), key=lambda row: row.finished_s)
    for row in done:
        service = row.prompt_tokens - row.cached_tokens + output_weight * row.output_tokens
        if row.tenant == tenants[0]:
            gap += service
        elif row.tenant == tenants[1]:
            gap -= service
        worst = max(worst, abs(gap))
    return worst
