"""How long KV takes from a prefill to a decode engine: a prior, scaled by what has been observed. Pure.

What is observed of a hand-over is the time from the decode request to its first byte, which has a step and an HTTP
exchange in it: exactly what a request that is handed over waits for.
"""

from __future__ import annotations

from hekla.routing.load_columns import Vector
from hekla.routing.pairs.settings import DisaggregationSettings

KINDS_MAX = 1024
SCALE_MIN, SCALE_MAX = 0.1, 100.0
WEIGHT = 0.1
"""Of the latest observation in the running mean: about the last ten count."""


class Transfers:
    """By a kind of decode engine (`hekla.routing.scheduling.priors.kind_of`)."""

    def __init__(self, settings: DisaggregationSettings) -> None:
        self._setup_s, self._token_s = settings.transfer_setup_s, 1.0 / settings.transfer_tokens_s
        self._scales: dict[str, float] = {}

    def scale(self, kind: str) -> float:
        return self._scales.get(kind, 1.0)

    def seconds(self, tokens: Vector, scales: Vector) -> Vector:
        """For so many tokens that the decode engine does not hold already."""
        found: Vector = (self._setup_s + tokens * self._token_s) * scales
        return found

    def observe(self, kind: str, tokens: float, seconds: float) -> None:
        expected_s = self._setup_s + tokens * self._token_s
        if seconds <= 0 or expected_s <= 0:
            return
        if kind not in self._scales and len(self._scales) >= KINDS_MAX:
            self._scales.clear()
        ratio = min(max(seconds / expected_s, SCALE_MIN), SCALE_MAX)
        self._scales[kind] = self.scale(kind) + WEIGHT * (ratio - self.scale(kind))
