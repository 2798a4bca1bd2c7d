"""Arrival times of open loops, in seconds from 0."""

from __future__ import annotations

from math import log
from random import Random

ARRIVALS_MAX = 5_000_000


def poisson(dice: Random, rate: float, seconds: float) -> list[float]:
    """`rate` per second on average, memoryless."""
    return gamma(dice, rate, seconds, cv=1.0)


def gamma(dice: Random, rate: float, seconds: float, *, cv: float) -> list[float]:
    """Gaps with a coefficient of variation `cv`: 1 is Poisson, above it arrivals come in bursts."""
    if rate <= 0 or seconds <= 0 or cv <= 0:
        raise ValueError(f"rate, seconds and cv must be above 0, not {rate}, {seconds} and {cv}")
    if rate * seconds > ARRIVALS_MAX:
        raise ValueError(f"{rate} per second for {seconds} s are more than {ARRIVALS_MAX} arrivals")
    shape = 1 / cv**2
    times, now = [], dice.gammavariate(shape, 1 / (rate * shape))
    while now < seconds:
        times.append(now)
        now += dice.gammavariate(shape, 1 / (rate * shape))
    return times


def log_normal(dice: Random, mean: float, deviation: float, low: float, high: float) -> int:
    """A whole number from the log-normal distribution with this mean and standard deviation, cut off at both ends."""
    sigma2 = log(1 + (deviation / mean) ** 2)
    drawn = dice.lognormvariate(log(mean) - sigma2 / 2, sigma2**0.5)
    return int(min(high, max(low, drawn)))


def normal(dice: Random, mean: float, deviation: float, low: float = 1) -> int:
    return int(max(low, dice.gauss(mean, deviation)))


def zipf_weights(count: int, exponent: float) -> list[float]:
    """Popularity of `count` items, the first most."""
    return [1 / (rank + 1) ** exponent for rank in range(count)]
