"""Learning how long things take, one observation at a time, from measurements that are now and then absurd.

`ScaleFit` learns by which factor a prediction is off; `LinearFit` learns the coefficients of a sum of causes. Both
work on logarithms of ratios where a clip makes them robust (Huber's idea: what lies far beyond the usual deviation
counts as if it lay at its edge), both forget exponentially, and neither can return NaN, zero or infinity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

CLIP_DEVIATIONS = 3.0
"""What is further off than this many usual deviations counts as if it were that far off."""
DEVIATION_FIRST = 2.0
"""Before anything is known a prior may be off by e², either way."""
DEVIATION_MIN = 0.05
LOG_MAX = 7.0
"""No factor leaves e⁻⁷ … e⁷: three decimal orders either way of any prior."""


class ScaleFit:
    """The typical logarithm of observed over predicted: an exponentially weighted, clipped mean.

    `prior_weight` is how many observations the starting value (a factor of one) counts for, `memory` how many the
    mean remembers.
    """

    __slots__ = ("_memory", "_prior_weight", "count", "deviation", "log")

    def __init__(self, *, prior_weight: float, memory: float) -> None:
        self._prior_weight, self._memory = prior_weight, memory
        self.log, self.deviation, self.count = 0.0, DEVIATION_FIRST, 0

    @property
    def factor(self) -> float:
        return math.exp(self.log)

    def observe(self, ratio: float) -> None:
        """`ratio` of observed to predicted; anything but a finite number above 0 is ignored."""
        if not (math.isfinite(ratio) and ratio > 0):
            return
        self.count += 1
        reach = CLIP_DEVIATIONS * self.deviation
        off = min(max(math.log(ratio) - self.log, -reach), reach)
        step = max(1.0 / (self.count + self._prior_weight), 1.0 / self._memory)
        self.log = min(max(self.log + step * off, -LOG_MAX), LOG_MAX)
        self.deviation = min(max(self.deviation + step * (abs(off) - self.deviation), DEVIATION_MIN), LOG_MAX)


class LinearFit:
    """`seconds ≈ Σ coefficient · cause` with coefficients of 0 or more: weighted least squares of relative errors.

    Its prior is the given coefficients times the factor by which they are all off (`ScaleFit`), so that a prior of the
    right shape and the wrong size is corrected by a handful of observations.
    """

    PRIOR_WEIGHT = 2.0
    """Observations the prior's shape counts for, each as telling of every cause as the mean observation."""
    SOLVED_EACH_UNTIL = 32
    SOLVED_EVERY = 8
    """At first each observation is worth a new solution; later one in eight is."""

    def __init__(self, prior: Sequence[float], *, memory: float) -> None:
        self._prior = tuple(max(float(value), 1e-12) for value in prior)
        self._keep = 1.0 - 1.0 / memory
        self._scale = ScaleFit(prior_weight=1.0, memory=memory)
        self._residual = ScaleFit(prior_weight=1.0, memory=memory)
        size = len(self._prior)
        # Two or three causes: plain numbers are several times faster than arrays of them.
        self._squares, self._products = [[0.0] * size for _ in range(size)], [0.0] * size
        self._weight = 0.0
        """How many observations are remembered."""
        self.coefficients: tuple[float, ...] = self._prior

    @property
    def count(self) -> int:
        return self._scale.count

    def predict(self, causes: Sequence[float]) -> float:
        return sum(c * x for c, x in zip(self.coefficients, causes, strict=True))

    def observe(self, causes: Sequence[float], seconds: float) -> None:
        """Causes of 0 or more; anything not finite, or not above 0 in all, is ignored."""
        by_prior = sum(p * x for p, x in zip(self._prior, causes, strict=True))
        if not (math.isfinite(seconds) and seconds > 0 and math.isfinite(by_prior) and by_prior > 0):
            return
        self._scale.observe(seconds / by_prior)
        predicted = max(self.predict(causes), 1e-9)
        reach = CLIP_DEVIATIONS * self._residual.deviation
        believed = predicted * math.exp(min(max(math.log(seconds / predicted), -reach), reach))
        self._residual.observe(believed / predicted)
        weight = 1.0 / max(predicted, believed) ** 2
        keep, products = self._keep, self._products
        for i, (cause, row) in enumerate(zip(causes, self._squares, strict=True)):
            products[i] = products[i] * keep + weight * believed * cause
            for j, other in enumerate(causes):
                row[j] = row[j] * keep + weight * cause * other
        self._weight = self._weight * self._keep + 1.0
        if self.count <= self.SOLVED_EACH_UNTIL or self.count % self.SOLVED_EVERY == 0:
            self._solve()

    def _solve(self) -> None:
        """Ridge towards the scaled prior; a coefficient that would be negative is 0 and the rest is solved again."""
        prior, seen = np.array(self._prior) * self._scale.factor, np.array(self._squares)
        pull = self.PRIOR_WEIGHT * np.diag(seen) / self._weight + 1e-6 / prior**2
        squares, products = seen + np.diag(pull), np.array(self._products) + pull * prior
        free = np.ones(len(prior), dtype=bool)
        found = np.zeros(len(prior))
        while free.any():
            found[:] = 0.0
            found[free] = np.linalg.solve(squares[np.ix_(free, free)], products[free])
            if (found[free] >= 0).all():
                break
            free &= found > 0
        if np.isfinite(found).all() and found.any():
            self.coefficients = tuple(np.clip(found, prior * 1e-3, prior * 1e3).tolist())
