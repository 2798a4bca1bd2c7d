"""How long answers are, by model and tenant. Pure."""

from __future__ import annotations

from collections import OrderedDict

PRIOR_TOKENS = 256.0
"""Before anything was seen: about the mean of public chat traces."""
WEIGHT = 0.1
KEPT_MAX = 10_000
"""Pairs of model and tenant."""


class OutputEstimator:
    """A running mean per tenant, bounded by what the request allows; a stranger's is its model's."""

    def __init__(self) -> None:
        self._means: OrderedDict[tuple[str, str], float] = OrderedDict()

    def estimate(self, model: str, tenant: str, tokens_max: int) -> int:
        """Output tokens, at least 1; `tokens_max` of 0: the client sets no limit."""
        mean = self._means.get((model, tenant), self._means.get((model, ""), PRIOR_TOKENS))
        return max(1, round(min(mean, tokens_max) if tokens_max > 0 else mean))

    def observe(self, model: str, tenant: str, tokens: int) -> None:
        for key in {(model, tenant), (model, "")}:
            before = self._means.pop(key, None)
            self._means[key] = float(tokens) if before is None else before + WEIGHT * (tokens - before)
        while len(self._means) > KEPT_MAX:
            self._means.popitem(last=False)
