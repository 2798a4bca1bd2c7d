"""How fast each engine is: a prior by model and accelerator, corrected by what is observed. Pure.

Engines of one kind share a fit of what a first token and a decode step take; each engine has a factor of its own by
which it is slower or faster than its kind. So one observation teaches about all engines alike, and a mixed pool whose
labels tell nothing still learns who is fast. Differences below `NOISE` are not believed: equals stay equal, and their
ties are drawn by lot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

import numpy as np

from hekla.routing.backend import Backend
from hekla.routing.load_columns import Rows, Vector
from hekla.routing.scheduling.candidates import Candidates, Pool
from hekla.routing.scheduling.regression import LinearFit, ScaleFit

MEMORY_OBSERVATIONS = 200.0
"""What a kind's fit remembers."""
ENGINE_MEMORY_OBSERVATIONS = 48.0
"""What an engine's own factor remembers: a throttled accelerator shows within a minute of traffic."""
ENGINE_PRIOR_WEIGHT = 3.0
NOISE = 0.05
"""A factor nearer to one than this is none: measurements of equal engines differ by that much."""
ENGINES_MAX = 100_000
LESSONS_PER_S = 50
"""At most about so many requests a second teach of one engine, evenly taken out of all."""
Lessons = Literal["prefill", "step"]
PREFILL_TOKENS_MIN = 64
"""A first token after fewer tokens than this tells about the overhead, not about one engine's speed."""

PREFILL_S: Final = 0
OVERHEAD_S: Final = 1
STEP_BASE_S: Final = 2
STEP_REQUEST_S: Final = 3
STEP_CONTEXT_S: Final = 4
KV_CAPACITY: Final = 5
OUTPUT_TOKENS: Final = 6
WIDTH: Final = 7


class EngineRates(NamedTuple):
    """The speed of one engine. All finite; `prefill_tokens_s` and the steps are above 0."""

    prefill_tokens_s: float
    """Prompt tokens computed in a second."""
    overhead_s: float
    """What every first token takes beside its prompt's computation: the network, one step, the answer's start."""
    step_base_s: float
    """A decode step with nobody in it: reading the weights."""
    step_per_request_s: float
    """What each request in the batch adds to a step."""
    step_per_context_token_s: float
    """What each token of the batch's contexts adds: reading the KV cache."""
    kv_capacity_tokens: float
    """Tokens its KV cache holds; 0 while unknown."""
    output_tokens: float
    """Mean length of its answers."""

    def step_s(self, requests: float, context_tokens: float) -> float:
        """Seconds from one output token to the next in a batch of `requests`."""
        return self.step_base_s + self.step_per_request_s * requests + self.step_per_context_token_s * context_tokens


class ForecastErrors(NamedTuple):
    """Mean absolute relative errors of late, as shares (0.2 is 20 %); 0 before the first observation."""

    ttft: float
    tpot: float


class _Spread:
    """How engines of a kind differ: the sum of their factors' logarithms, so that each is seen relative to their mean.

    What all have in common is the kind's, however it was learned; a lone engine is its kind.
    """

    def __init__(self) -> None:
        self._total, self._seen = 0.0, 0

    def observe(self, fit: ScaleFit, ratio: float) -> None:
        before, was_seen = fit.log, fit.count > 0
        fit.observe(ratio)
        self._total += fit.log - before
        self._seen += (fit.count > 0) - was_seen

    def leave(self, fit: ScaleFit) -> None:
        self._total -= fit.log
        self._seen -= fit.count > 0

    def factor(self, fit: ScaleFit) -> float:
        """1 for an engine never seen, and where the difference is within the noise."""
        off = fit.log - self._total / self._seen if fit.count else 0.0
        return math.exp(off) if abs(off) > NOISE else 1.0


class _Kind:
    def __init__(self, prior: EngineRates) -> None:
        self.prior = prior
        self.first_token = LinearFit((prior.overhead_s, 1.0 / prior.prefill_tokens_s), memory=MEMORY_OBSERVATIONS)
        self.step = LinearFit(prior[2:5], memory=MEMORY_OBSERVATIONS)
        self.prefill_spread, self.step_spread = _Spread(), _Spread()
        self.output_tokens, self.outputs = prior.output_tokens, 0
        self.ttft_error, self.ttfts = 0.0, 0
        self.tpot_error, self.tpots = 0.0, 0
        self.engines: dict[str, _Engine] = {}
        self.rows: Rows | None = None
        """Those of its engines; None: to be gathered anew."""
        self.published: tuple[tuple[float, ...], tuple[float, ...]] | None = None
        """The coefficients that the table was written with."""


class _Engine:
    def __init__(self, kind: _Kind, row: int) -> None:
        self.kind, self.row = kind, row
        self.prefill = ScaleFit(prior_weight=ENGINE_PRIOR_WEIGHT, memory=ENGINE_MEMORY_OBSERVATIONS)
        self.step = ScaleFit(prior_weight=ENGINE_PRIOR_WEIGHT, memory=ENGINE_MEMORY_OBSERVATIONS)
        self.kv_capacity = kind.prior.kv_capacity_tokens
        self.lessons = {"prefill": _Share(), "step": _Share()}


class _Share:
    """Every n-th of a flow, n by how fast it came in the last second.

    Counted, not timed: the first of each few milliseconds would be a biased choice, since what starts a batch of
    answers is not like what follows.
    """

    __slots__ = ("_count", "_every", "_since_s", "_start")

    def __init__(self) -> None:
        self._count, self._every = 0, 1
        self._start, self._since_s = 0, float("-inf")

    def takes(self, now_s: float, most_per_s: float) -> bool:
        self._count += 1
        span_s = now_s - self._since_s
        if span_s >= 1.0 or span_s < 0.0:
            self._every = max(1, round((self._count - self._start) / span_s / most_per_s)) if span_s >= 1.0 else 1
            self._start, self._since_s = self._count, now_s
        return self._count % self._every == 0


class RateBook:
    """`prior` is what to believe of a backend never seen, `kind_of` which backends are expected to be alike."""

    def __init__(self, prior: Callable[[Backend], EngineRates], kind_of: Callable[[Backend], str]) -> None:
        self._prior, self._kind_of = prior, kind_of
        self._kinds: dict[str, _Kind] = {}
        self._engines: dict[str, _Engine] = {}
        self._table: Vector = np.zeros((WIDTH, 64))
        self._factors: Vector = np.ones((2, 64))
        self._free = list(range(63, -1, -1))
        self._generation = 0
        self._stale: set[_Engine] = set()
        """Those of which more is known than the table says: it is written when it is read."""

    def rates(self, backend: Backend) -> EngineRates:
        engine = self._engine(backend)
        kind = engine.kind
        slower, longer = kind.prefill_spread.factor(engine.prefill), kind.step_spread.factor(engine.step)
        overhead_s, prefill_s = kind.first_token.coefficients
        base_s, request_s, context_s = kind.step.coefficients
        return EngineRates(
            1.0 / (prefill_s * slower), overhead_s * slower, base_s * longer, request_s * longer, context_s * longer,
            engine.kv_capacity, kind.output_tokens,
        )  # fmt: skip

    def vectors(self, candidates: Candidates) -> Vector:
        """`[column, candidate]`; the columns are this module's constants, prefill as seconds per token."""
        rows: Rows = candidates.pool.keep(("rates", id(self), self._generation), self._rows)
        if self._stale:
            self._publish()
        return np.take(self._table, rows if candidates.is_whole else rows[candidates.positions], axis=1)

    def _rows(self, pool: Pool) -> Rows:
        return np.array([self._engine(candidate.backend).row for candidate in pool.candidates], dtype=np.int64)

    def observe_first_token(self, backend: Backend, tokens: float, seconds: float) -> None:
        """`tokens` were computed until its first token, those ahead of it in the queue included, in `seconds`."""
        engine = self._engine(backend)
        fit, spread = engine.kind.first_token, engine.kind.prefill_spread
        causes = (1.0, max(tokens, 0.0))
        if tokens >= PREFILL_TOKENS_MIN:
            spread.observe(engine.prefill, seconds / max(fit.predict(causes), 1e-9))
        fit.observe(causes, seconds / spread.factor(engine.prefill))
        self._stale.add(engine)

    def observe_step(self, backend: Backend, requests: float, context_tokens: float, seconds: float) -> None:
        """Output tokens came `seconds` apart while the batch held so many requests and tokens of context."""
        engine = self._engine(backend)
        fit, spread = engine.kind.step, engine.kind.step_spread
        causes = (1.0, max(requests, 0.0), max(context_tokens, 0.0))
        spread.observe(engine.step, seconds / max(fit.predict(causes), 1e-9))
        fit.observe(causes, seconds / spread.factor(engine.step))
        self._stale.add(engine)

    def may_learn(self, what: Lessons, backend: Backend, now_s: float) -> bool:
        """To be asked once for each lesson. Of a thousand requests a second a few dozen teach as much: the rest say no."""
        return self._engine(backend).lessons[what].takes(now_s, LESSONS_PER_S)

    def observe_output(self, backend: Backend, tokens: int) -> None:
        """An answer had so many tokens."""
        kind = self._engine(backend).kind
        if tokens > 0:
            kind.outputs += 1
            kind.output_tokens += (tokens - kind.output_tokens) * max(1 / (kind.outputs + 4), 1 / MEMORY_OBSERVATIONS)

    def observe_errors(self, backend: Backend, *, ttft: float | None = None, tpot: float | None = None) -> None:
        """How far a forecast was off, as a share of what happened."""
        kind = self._engine(backend).kind
        if ttft is not None and math.isfinite(ttft):
            kind.ttfts += 1
            kind.ttft_error += (min(ttft, 100.0) - kind.ttft_error) * max(1 / kind.ttfts, 1 / MEMORY_OBSERVATIONS)
        if tpot is not None and math.isfinite(tpot):
            kind.tpots += 1
            kind.tpot_error += (min(tpot, 100.0) - kind.tpot_error) * max(1 / kind.tpots, 1 / MEMORY_OBSERVATIONS)

    def learn_capacity(self, backend: Backend, tokens: int) -> None:
        """The engine says how many tokens its KV cache holds."""
        if tokens > 0:
            engine = self._engine(backend)
            engine.kv_capacity = float(tokens)
            self._stale.add(engine)

    def errors(self) -> Mapping[str, ForecastErrors]:
        """By kind."""
        return {name: ForecastErrors(kind.ttft_error, kind.tpot_error) for name, kind in self._kinds.items()}

    def forget(self, known: set[str]) -> None:
        """Drops engines whose keys are not among these; what was learned of their kind stays as long as it has any."""
        gone = self._engines.keys() - known
        for key in gone:
            engine = self._engines.pop(key)
            engine.kind.engines.pop(key, None)
            engine.kind.prefill_spread.leave(engine.prefill)
            engine.kind.step_spread.leave(engine.step)
            engine.kind.rows = None
            self._stale.discard(engine)
            self._free.append(engine.row)
        if gone:
            self._generation += 1

    def _engine(self, backend: Backend) -> _Engine:
        found = self._engines.get(backend.key)
        return found if found is not None else self._meet(backend)

    def _meet(self, backend: Backend) -> _Engine:
        name = self._kind_of(backend)
        kind = self._kinds.get(name)
        if kind is None:
            kind = self._kinds[name] = _Kind(self._prior(backend))
        if not self._free:
            size = self._table.shape[1]
            if size >= ENGINES_MAX:
                raise ValueError(f"rates of {size} engines are kept; allowed: {ENGINES_MAX}")
            self._table = np.concatenate([self._table, np.zeros_like(self._table)], axis=1)
            self._factors = np.concatenate([self._factors, np.ones_like(self._factors)], axis=1)
            self._free = list(range(size * 2 - 1, size - 1, -1))
        engine = self._engines[backend.key] = kind.engines[backend.key] = _Engine(kind, self._free.pop())
        kind.rows = None
        self._stale.add(engine)
        return engine

    def _publish(self) -> None:
        """What each kind is known to be, times what each engine of the kind is itself.

        All of a kind at once: were only the engines observed brought up to date, equals would differ by age.
        """
        for engine in self._stale:
            kind = engine.kind
            own = kind.prefill_spread.factor(engine.prefill), kind.step_spread.factor(engine.step)
            self._factors[:, engine.row] = own
        kinds = {id(engine.kind): engine.kind for engine in self._stale}
        for kind in kinds.values():
            solved = (kind.first_token.coefficients, kind.step.coefficients)
            if kind.rows is None or kind.published != solved:
                kind.published = solved
                self._publish_kind(kind)
        for engine in self._stale:
            self._table[:, engine.row] = self._row_of(engine)
        for kind in kinds.values():
            self._table[OUTPUT_TOKENS, kind.rows] = kind.output_tokens
        self._stale.clear()

    def _row_of(self, engine: _Engine) -> tuple[float, ...]:
        kind, (slower, longer) = engine.kind, self._factors[:, engine.row].tolist()
        (overhead_s, prefill_s), (base_s, request_s, context_s) = kind.first_token.coefficients, kind.step.coefficients
        return (
            prefill_s * slower, overhead_s * slower, base_s * longer, request_s * longer, context_s * longer,
            engine.kv_capacity, kind.output_tokens,
        )  # fmt: skip

    def _publish_kind(self, kind: _Kind) -> None:
        if kind.rows is None:
            kind.rows = np.array([e.row for e in kind.engines.values()], dtype=np.int64)
        overhead_s, prefill_s = kind.first_token.coefficients
        slower, longer = self._factors[:, kind.rows]
        table, rows = self._table, kind.rows
        table[PREFILL_S, rows], table[OVERHEAD_S, rows] = prefill_s * slower, overhead_s * slower
        for column, seconds in zip((STEP_BASE_S, STEP_REQUEST_S, STEP_CONTEXT_S), kind.step.coefficients, strict=True):
            table[column, rows] = seconds * longer
