"""Why a prompt is computed on the decode engine itself, or on a prefill engine: the words and the numbers. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Way = Literal["local", "remote"]
Reason = Literal[
    "short", "cached", "backed_up", "threshold", "no_prefill_engine", "one_engine_only", "hand_over_failed",
    "faster", "decode_only", "handed",
]  # fmt: skip
"""Of `local`: `short` the hand-over would cost more than the prefill · `cached` the decode engine holds most of the
prompt · `backed_up` the prefill engines have a queue · `threshold` the configured number of tokens says so ·
`no_prefill_engine` none is left · `one_engine_only` the request can't be handed over · `hand_over_failed` it was
tried and the decode engine failed.
Of `remote`: `faster` predicted to be · `threshold` · `decode_only` the decode engine does no prefill · `handed` a
prefill engine has done it already."""


@dataclass(frozen=True)
class Seconds:
    """What the two ways would take on the engines chosen, without what they have in common (the decoding)."""

    local_s: float
    """Until the decode engine had computed the prompt itself, and the delay of those it serves."""
    remote_s: float
    """Prefill queue, prefill and hand-over; infinite without a prefill engine."""
    prefill_wait_s: float
    transfer_s: float
    uncached_tokens: float
    """Of the prompt, not in the decode engine's cache."""


@dataclass(frozen=True)
class PairVerdict:
    way: Way
    reason: Reason
    seconds: Seconds | None = None

    def explain(self, prefill: str) -> dict[str, Any]:
        """As JSON; `prefill` names the prefill engine, empty for none."""
        told: dict[str, Any] = {"way": self.way, "reason": self.reason, "engine": prefill or None}
        if self.seconds is not None:
            finite = {name: value for name, value in vars(self.seconds).items() if value != float("inf")}
            told["seconds"] = finite
        return told
