"""What came out of a decision and why; told in full only when someone asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hekla.routing.load_columns import REQUESTS, Vector
from hekla.routing.scheduling.candidates import Candidates
from hekla.routing.scheduling.forecast import Forecasts
from hekla.routing.scheduling.interface import Candidate

EXPLAINED_MAX = 64
"""Candidates told of; the others are only counted. A thousand engines would not fit into a header or a log line."""


@dataclass(frozen=True)
class Decision:
    """The engine chosen and why."""

    chosen: Candidate
    candidates: Candidates
    """Those that passed the filters."""
    totals: Vector
    """Weighted sum per candidate."""
    parts: Mapping[str, Vector]
    """Each scorer's scores, before its weight."""
    weights: Mapping[str, float] = field(default_factory=dict)
    stages: Sequence[tuple[str, Candidates]] = ()
    """Each filter that left some out, with those it was given."""
    forecasts: Forecasts | None = None
    """What was predicted, when a scorer asked for it."""

    def explain(self) -> dict[str, Any]:
        """As JSON: the choice, the candidates with their scores and forecasts, best first, and who was left out by what."""
        order = sorted(range(len(self.candidates)), key=lambda i: -float(self.totals[i]))
        return {
            "chosen": self.chosen.backend.key,
            "weights": dict(self.weights),
            "candidates": [self._candidate(i) for i in order[:EXPLAINED_MAX]],
            "candidates_left_out_of_this_list": max(len(order) - EXPLAINED_MAX, 0),
            "excluded": self._excluded(),
        }

    def _candidate(self, i: int) -> dict[str, Any]:
        candidate = self.candidates[i]
        told: dict[str, Any] = {
            "engine": candidate.backend.key,
            "total": float(self.totals[i]),
            "scores": {name: float(scores[i]) for name, scores in self.parts.items()},
            "requests": int(self.candidates.loads[REQUESTS, i]),
        }
        if self.forecasts is not None and self.forecasts.candidates is self.candidates:
            forecast = self.forecasts[i]
            told["forecast"] = {**vars(forecast), "ttft_s": forecast.ttft_s}
        return told

    def _excluded(self) -> dict[str, str]:
        """Engine to filter."""
        excluded: dict[str, str] = {}
        seen = [*(before for _, before in self.stages), self.candidates]
        for (name, before), left in zip(self.stages, seen[1:], strict=True):
            kept = set(left.keys)
            for key in before.keys:
                if key not in kept and len(excluded) < EXPLAINED_MAX:
                    excluded[key] = name
        return excluded
