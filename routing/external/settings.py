"""Settings of requests to external providers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExternalSettings:
    headers_timeout_s: float = 600.0
    """Longest wait for a provider's response headers: a plain answer's come when it is whole, and both vendors' own SDKs
    wait ten minutes. 0: no limit."""
    error_body_bytes_max: int = 2**20
    """An error of a provider up to this size is held, so that another target may be asked; a larger one goes to the client."""
    connect_attempts: int = 2
    """Further tries when no connection came about. After the request has been sent there is none: it may have been billed."""
    connect_interval_s: float = 0.2
    """Wait before the second try; it doubles."""

    def __post_init__(self) -> None:
        for name in ("headers_timeout_s", "error_body_bytes_max", "connect_attempts", "connect_interval_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"external.{name} is {getattr(self, name)}; allowed: 0 or more")
