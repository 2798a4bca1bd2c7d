"""Filter → score → pick, in one function. Pure but for the meter it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hekla.routing.load_columns import Vector
from hekla.routing.scheduling.candidates import Candidates
from hekla.routing.scheduling.decision import Decision
from hekla.routing.scheduling.forecast import Forecaster
from hekla.routing.scheduling.interface import Busy, Candidate, Filter, RequestView, Scorer

Meter = Callable[[str, str, float], None]
"""Called with plugin, `filter` or `score`, and seconds spent."""
OnError = Callable[[str, Exception], None]
"""Called with the plugin that raised, and what."""


SPARES_LAST = "spares_last"
"""A filter that has this attribute set never leaves nobody: it is not asked about a single candidate."""


def raise_error(plugin: str, error: Exception) -> None:
    raise error


@dataclass(frozen=True)
class Profile:
    filters: tuple[Filter, ...]
    scorers: tuple[tuple[Scorer, float], ...]
    forecaster: Forecaster | None = None
    """Where decisions find what was predicted, to explain themselves."""
    on_error: OnError = raise_error
    """When it returns, a failed filter has left nobody out and a failed scorer has told no difference: a plugin's
    trouble is no reason to refuse a request."""

    def schedule(
        self, request: RequestView, candidates: Sequence[Candidate], timer: Callable[[], float], meter: Meter
    ) -> Decision:
        """The best candidate; equals are drawn by lot. Raises Busy when the filters leave none.

        `candidates` must not be empty: no ready engine is a different answer, and the caller's.
        """
        left, stages = self._filter(request, Candidates.of(candidates), timer, meter)
        if len(left) == 1:  # nothing to choose, and so nothing to compare
            return Decision(left[0], left, np.zeros(1), {}, {}, stages)
        totals, parts, before = np.zeros(len(left)), {}, timer()
        for scorer, weight in self.scorers:
            scores = parts[scorer.name] = self._score(scorer, request, left)
            totals += weight * scores
            after = timer()
            meter(scorer.name, "score", after - before)
            before = after
        forecasts = None if self.forecaster is None else self.forecaster.made(request)
        weights = {scorer.name: weight for scorer, weight in self.scorers}
        return Decision(_best(request, left, totals), left, totals, parts, weights, stages, forecasts)

    def filter(
        self, request: RequestView, candidates: Sequence[Candidate], timer: Callable[[], float], meter: Meter
    ) -> Candidates:
        """Those that may take the request. Raises Busy when none may."""
        return self._filter(request, Candidates.of(candidates), timer, meter)[0]

    def _filter(
        self, request: RequestView, candidates: Candidates, timer: Callable[[], float], meter: Meter
    ) -> tuple[Candidates, list[tuple[str, Candidates]]]:
        left, stages, before = candidates, list[tuple[str, Candidates]](), timer()
        for plugin in self.filters:
            if len(left) == 1 and getattr(plugin, SPARES_LAST, False):
                continue
            try:
                kept = Candidates.of(plugin.keep(request, left))
            except Exception as error:  # noqa: BLE001  # whatever it is, `on_error` decides
                self.on_error(plugin.name, error)
                kept = left
            after = timer()
            meter(plugin.name, "filter", after - before)
            before = after
            if not kept:
                raise Busy(plugin.name, len(candidates))
            if kept is not left:
                stages.append((plugin.name, left))
            left = kept
        return left, stages

    def _score(self, scorer: Scorer, request: RequestView, candidates: Candidates) -> Vector:
        try:
            return np.asarray(scorer.score(request, candidates), dtype=np.float64)
        except Exception as error:  # noqa: BLE001  # whatever it is, `on_error` decides
            self.on_error(scorer.name, error)
            return np.zeros(len(candidates))


def _best(request: RequestView, candidates: Candidates, totals: Vector) -> Candidate:
    equals = np.flatnonzero(totals == totals.max())
    return candidates[int(equals[0] if len(equals) == 1 else equals[int(request.random * len(equals))])]
