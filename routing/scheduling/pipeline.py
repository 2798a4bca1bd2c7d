"""Filter → score → pick, in one function. Pure but for the meter it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hekla.routing.scheduling.interface import Busy, Candidate, Decision, Filter, RequestView, Scorer

Meter = Callable[[str, str, float], None]
"""Called with plugin, `filter` or `score`, and seconds spent."""


@dataclass(frozen=True)
class Profile:
    filters: tuple[Filter, ...]
    scorers: tuple[tuple[Scorer, float], ...]

    def schedule(
        self, request: RequestView, candidates: Sequence[Candidate], timer: Callable[[], float], meter: Meter
    ) -> Decision:
        """The best candidate; equals are drawn by lot. Raises Busy when the filters leave none.

        `candidates` must not be empty: no ready engine is a different answer, and the caller's.
        """
        left, before = candidates, timer()
        for plugin in self.filters:
            left = plugin.keep(request, left)
            after = timer()
            meter(plugin.name, "filter", after - before)
            before = after
            if not left:
                raise Busy(plugin.name, len(candidates))
        totals, parts = [0.0] * len(left), {}
        for scorer, weight in self.scorers:
            scores = parts[scorer.name] = scorer.score(request, left)
            totals = [total + weight * score for total, score in zip(totals, scores, strict=True)]
            after = timer()
            meter(scorer.name, "score", after - before)
            before = after
        return Decision(_best(request, left, totals), left, totals, parts)


def _best(request: RequestView, candidates: Sequence[Candidate], totals: list[float]) -> Candidate:
    top = max(totals)
    equals = [i for i, total in enumerate(totals) if total == top]
    return candidates[equals[0] if len(equals) == 1 else equals[int(request.random * len(equals))]]
