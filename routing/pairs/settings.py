"""Settings of prefill and decode on two engines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DisaggregationSettings:
    local_prefill_tokens_max: int | None = None
    """Prompts with at most this many tokens outside the decode engine's cache are computed there; 0: none are. None:
    decided by predicted time, request by request. `pdGroup.localPrefillTokensMax` of a ModelServer comes first."""
    hysteresis: float = 0.1
    """A prompt stays local when that is predicted to be faster by more than this share: a forecast is no better than
    that, and requests that alternate between engines find their cache on neither."""
    delayed_min: float = 1.0
    """Requests that a prefill on a decode engine is taken to delay at least: also on an idle one somebody comes soon."""
    transfer_setup_s: float = 0.01
    """Of a hand-over, beside its tokens: metadata, a round trip and a step, before it has been observed."""
    transfer_tokens_s: float = 190_000.0
    """Tokens of KV cache that are handed over in a second, before it has been observed: 128 KiB each over 25 GB/s."""
    lease_s: float = 20.0
    """How long another decode engine may still fetch what a prefill engine computed: below engines' own leases (30 s and more)."""
    bootstrap_timeout_s: float = 1.0
    """Longest wait for a prefill engine's bootstrap server, which is asked once."""
    bootstrap_retry_s: float = 30.0
    """An engine without a bootstrap server is asked again after this."""

    def __post_init__(self) -> None:
        tokens = self.local_prefill_tokens_max
        if tokens is not None and tokens < 0:
            raise ValueError(f"disaggregation.local_prefill_tokens_max is {tokens}; allowed: None, or 0 or more")
        if not 0 <= self.hysteresis < 1:
            raise ValueError(f"disaggregation.hysteresis is {self.hysteresis}; allowed: 0 or more, below 1")
        for name in ("transfer_tokens_s", "bootstrap_timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"disaggregation.{name} is {getattr(self, name)}; allowed: above 0")
        for name in ("delayed_min", "transfer_setup_s", "lease_s", "bootstrap_retry_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"disaggregation.{name} is {getattr(self, name)}; allowed: 0 or more")
