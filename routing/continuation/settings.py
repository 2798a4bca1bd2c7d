"""Settings of mid-stream continuation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ContinuationSettings:
    """How far the ingress goes to finish a stream whose engine was lost."""

    attempts_max: int = 3
    """Engines in a row that a stream may lose with less than `progress_tokens` between and still be continued; 0: never
    continued. A request that kills every engine it meets must not take down a whole pool."""
    progress_tokens: int = 16
    """Tokens after which an engine's loss is taken for its own misfortune."""
    losses_max: int = 12
    """Engines one stream may lose in all: an hour's answer on machines that live five minutes."""
    wait_s: float = 30.0
    """Longest wait for an engine to continue on: a killed one is replaced within this by its supervisor."""
    wait_step_s: float = 0.1
    """Time between two looks for one."""
    prompt_tokens_max: int = 100_000
    """Estimated prompt tokens up to which the engine is asked for token ids: it tells those of the prompt in one event."""
    record_bytes_max: int = 4 * 2**20
    """What is remembered of one stream, in bytes of text and of token ids (4 each); a longer one can't be continued."""

    def __post_init__(self) -> None:
        for name in ("attempts_max", "progress_tokens", "losses_max", "prompt_tokens_max", "record_bytes_max"):
            if getattr(self, name) < 0:
                raise ValueError(f"continuation.{name} is {getattr(self, name)}; allowed: 0 or more")
        if self.wait_s < 0 or self.wait_step_s <= 0:
            raise ValueError(
                f"continuation.wait_s is {self.wait_s}, continuation.wait_step_s is {self.wait_step_s}; "
                "allowed: 0 or more, and above 0"
            )
