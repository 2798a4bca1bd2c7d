"""How sure a comparison is: confidence intervals by bootstrap over paired runs (same seed, same requests)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000


class Interval(NamedTuple):
    mean: float
    low: float
    high: float

    def __repr__(self) -> str:
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]"


def bootstrap(values: Sequence[float], *, confidence: float = 0.95, seed: int = 0) -> Interval:
    """The mean and its interval, by the percentile method. One value has no width."""
    if not values:
        raise ValueError("an interval of no values")
    sample = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(sample), (RESAMPLES, len(sample)))
    means = sample[drawn].mean(axis=1)
    tail = (1 - confidence) / 2 * 100
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(float(sample.mean()), float(low), float(high))


def paired_gain(ours: Sequence[float], theirs: Sequence[float], *, lower_is_better: bool) -> Interval:
    """By what share ours is better, run by run: positive is better. Pairs whose base is 0 count as equal."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} runs can't be paired with {len(theirs)}")
    sign = -1.0 if lower_is_better else 1.0
    return bootstrap([sign * (a - b) / abs(b) if b else 0.0 for a, b in zip(ours, theirs, strict=True)])
