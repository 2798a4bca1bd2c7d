"""What a fleet is given to serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count

from hekla.simulation.request import Blocks, SimRequest

Follow = Callable[[SimRequest, float], Sequence[SimRequest]]


def _nobody_follows(request: SimRequest, finished_s: float) -> Sequence[SimRequest]:
    return ()


@dataclass(frozen=True)
class Workload:
    name: str
    block_tokens: int
    """Size of the blocks that `SimRequest.blocks` names; engines must use the same."""
    requests: Sequence[SimRequest]
    """Arrive by themselves, ascending in time."""
    follow: Follow = _nobody_follows
    """Requests that arrive because one has ended (also when it was refused), at or after that time."""
    warm_s: float = 0.0
    """Requests that arrive before this are served and not counted."""
    until_s: float = float("inf")
    """Requests that arrive after this are not counted either: a closed loop is cut off here."""

    def without_sharing(self) -> Workload:
        """The same lengths and times, and no prompt shares anything."""
        return replace(self, requests=[replace(request, blocks=(), after=()) for request in self.requests])


class BlockNames:
    """Fresh names for blocks."""

    def __init__(self, first: int = 1) -> None:
        self._next = count(first)

    def take(self, blocks: int) -> Blocks:
        return tuple(next(self._next) for _ in range(blocks))
