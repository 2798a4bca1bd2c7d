"""What is asked of an index of prefixes, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from hekla.routing.scheduling.candidates import Candidates
from hekla.routing.scheduling.interface import Candidate, PrefixKnowledge, RequestView

__all__ = ["Candidate", "Match", "PrefixIndex", "PrefixKnowledge", "RequestView", "keys_of"]


def keys_of(candidates: Sequence[Candidate]) -> Sequence[str]:
    """Their engines' keys; free of charge for `Candidates`."""
    if isinstance(candidates, Candidates):
        return candidates.keys
    return [candidate.backend.key for candidate in candidates]


class Match(NamedTuple):
    """How far each candidate's cache goes along one prompt."""

    tokens: list[float]
    """Per candidate: tokens at the prompt's start that need no prefill. A block in a slower tier counts as its credit."""
    blocks: list[int]
    """Per candidate: whole blocks held from the prompt's start on, in any tier."""
    blocks_total: int
    """Whole blocks in the prompt."""

    @staticmethod
    def nothing(candidates: Sequence[Candidate], blocks_total: int = 0) -> Match:
        return Match([0.0] * len(candidates), [0] * len(candidates), blocks_total)


class PrefixIndex(PrefixKnowledge, Protocol):
    """Prefix knowledge that also tells blocks."""

    def match(self, request: RequestView, candidates: Sequence[Candidate]) -> Match: ...

    def check(self) -> None:
        """Assert the invariants."""
