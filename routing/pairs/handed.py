"""What a try leaves behind for the next: a prompt that is computed already, or a hand-over that failed.

Kept in the request's memo, where the choice of engines finds it.
"""

from __future__ import annotations

from dataclasses import dataclass

from hekla.routing.scheduling.interface import RequestView

HANDED = "handed"
FAILED = "hand_over_failed"
"""In the memo once a decode engine failed after a hand-over: the next one computes the prompt itself, if it can."""


@dataclass(frozen=True)
class Handed:
    """A prefill engine's answer, for as long as it keeps the KV cache."""

    prefill: str
    """Its key."""
    answer: bytes
    room: int
    transfer_id: str
    until_s: float


def handed_of(request: RequestView) -> Handed | None:
    """One that can still be fetched."""
    found = request.memo.get(HANDED)
    return found if isinstance(found, Handed) and request.now_s < found.until_s else None
