"""Engines whose first tokens come much later than their siblings'. Pure.

What is compared is the logarithm of the time to first token, over what was forecast for the request where there is a
forecast: a long prompt or a long queue is no fault of the engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median

WEIGHT = 0.1
"""Of a new sample: about the last twenty count."""
SIBLINGS_MIN = 2
"""With fewer there is no telling who is the odd one."""


class Latency:
    __slots__ = ("mean_log", "samples")

    def __init__(self) -> None:
        self.samples, self.mean_log = 0, 0.0

    def add(self, first_token_s: float, forecast_s: float | None) -> None:
        ratio = max(first_token_s, 1e-6) / max(forecast_s if forecast_s is not None else 1.0, 1e-3)
        self.samples += 1
        self.mean_log += (math.log(ratio) - self.mean_log) * max(WEIGHT, 1 / self.samples)


def is_outlier(own: Latency, siblings: Iterable[Latency], *, factor: float, samples_min: int) -> bool:
    if own.samples < samples_min:
        return False
    known = [sibling.mean_log for sibling in siblings if sibling.samples >= samples_min]
    return len(known) >= SIBLINGS_MIN and own.mean_log - median(known) > math.log(factor)
