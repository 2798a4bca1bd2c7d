"""The life of a scheduled request, from the choice of an engine to its end there. Pure: the time is an argument.

The same code runs in the ingress and in simulations. A `Trip` counts as load from the moment an engine is chosen,
tells the prefix knowledge where its prompt will be, and when it ends teaches the rates what they predicted wrongly.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection
from typing import Self

from hekla.routing.backend import ModelServer
from hekla.routing.disaggregation import Plan, Planner
from hekla.routing.load import NOTHING, Counts, LoadBook
from hekla.routing.pairs.transfers import Transfers
from hekla.routing.scheduling.footprint import CHUNK_TOKENS, Footprint, chunks_of
from hekla.routing.scheduling.forecast import Forecast, Forecaster
from hekla.routing.scheduling.interface import Candidate, RequestView
from hekla.routing.scheduling.knowledge import prompt_tokens
from hekla.routing.scheduling.lesson import Lesson, Meters
from hekla.routing.scheduling.pipeline import Meter
from hekla.routing.usage import Usage

OnPrecision = Callable[[str, float], None]
"""Called with the model and how well the cached tokens were predicted: 1 exactly, 0 as wrong as can be."""
PROGRESS_TOKENS = 64
"""Generated tokens are added to the load in steps of this many: a decision does not feel fewer."""
UNSEEN_SLACK = 256
"""Entries of ended trips that may wait for their time; more are cleared out when they are the half of all."""


class Dispatcher:
    """`forecaster` is the one the scorers use, so that what they were told is what outcomes are compared with."""

    def __init__(
        self, planner: Planner, loads: LoadBook, forecaster: Forecaster, *,
        on_precision: OnPrecision = lambda model, precision: None,
    ) -> None:  # fmt: skip
        self._planner, self.loads, self.forecaster = planner, loads, forecaster
        self.knowledge, self.rates = forecaster.knowledge, forecaster.rates
        self.on_precision = on_precision
        self.meters = Meters(loads)
        self._queues: dict[str, dict[int, Trip]] = {}
        """Per engine, own trips without a first token, oldest first."""
        self._known: set[str] = set()
        self._footprints: dict[str, Footprint] = {}
        self._numbers = itertools.count()
        self._unseen: list[tuple[float, int]] = []
        """A heap of when first tokens that will not be seen are expected, with their trips' numbers."""
        self._unseen_trips: dict[int, Trip] = {}
        """Those of them that are under way. One that has ended leaves at once: it holds its request with all its bytes."""

    @property
    def transfers(self) -> Transfers:
        """How long KV takes between engines, as it is learned."""
        return self._planner.pairs.transfers

    def plan(self, server: ModelServer, request: RequestView, tried: Collection[str], meter: Meter) -> Plan:
        """The choice of engines for a request now (`request.now_s`). Raises NothingReady, AllTried or Busy."""
        self.advance(request.now_s)
        return self._planner.plan(server, request, tried, meter)

    def begin(
        self, candidate: Candidate, request: RequestView, *, now_s: float,
        prefill_only: bool = False, decode_only: bool = False, streamed: bool = True,
    ) -> Trip:  # fmt: skip
        """The request goes to the candidate now.

        `prefill_only` on an engine that computes the prompt for another, `decode_only` on that other. Of an answer
        that is not `streamed` the first token can't be seen: it is taken to come when it was forecast.
        """
        forecast = self.forecaster.of_chosen(request, candidate)
        trip = Trip(self, candidate, request, forecast, now_s)
        trip.open(prefill_only=prefill_only, decode_only=decode_only)
        if not streamed and not decode_only:
            heapq.heappush(self._unseen, (now_s + forecast.ttft_s, trip.number))
            self._unseen_trips[trip.number] = trip
        return trip

    def advance(self, now_s: float) -> None:
        """Moves answers that are not streamed past their prefill once it must be over. `plan` does it first."""
        while self._unseen and self._unseen[0][0] <= now_s:
            expected_s, number = heapq.heappop(self._unseen)
            if trip := self._unseen_trips.pop(number, None):
                trip.pass_prefill(expected_s)

    def forget(self, known: set[str]) -> None:
        """From now on these engines are in the table: what was learned of others goes."""
        for engine in self._known - known:
            self.knowledge.forget(engine)
        self._known = set(known)
        self.rates.forget(known)
        self.meters.forget(known)
        self._planner.forget()

    def next_number(self) -> int:
        return next(self._numbers)

    def hold(self, engine: str, chunks: tuple[int, ...]) -> int:
        if not chunks:
            return 0
        found = self._footprints.get(engine)
        if found is None:
            found = self._footprints[engine] = Footprint()
        return found.add(chunks)

    def let_go(self, engine: str, chunks: tuple[int, ...]) -> int:
        if not chunks:
            return 0
        footprint = self._footprints[engine]
        freed = footprint.remove(chunks)
        if not footprint:
            del self._footprints[engine]
        return freed

    def ended(self, trip: Trip) -> None:
        """Nothing more is expected of it."""
        if self._unseen_trips.pop(trip.number, None) and len(self._unseen) > 2 * len(self._unseen_trips) + UNSEEN_SLACK:
            self._unseen = [entry for entry in self._unseen if entry[1] in self._unseen_trips]
            heapq.heapify(self._unseen)

    def queue(self, trip: Trip, now_s: float) -> None:
        """It waits for its prefill at its engine."""
        queue = self._queues.setdefault(trip.engine, {})
        queue[trip.number] = trip
        if len(queue) == 1:
            trip.candidate.load.set_head(trip.prefill_tokens, now_s)

    def unqueue(self, trip: Trip, now_s: float) -> None:
        queue = self._queues.get(trip.engine, {})
        was_head = next(iter(queue), None) == trip.number
        queue.pop(trip.number, None)
        if not was_head:
            return
        head = next(iter(queue.values()), None)
        if head is None:
            self._queues.pop(trip.engine, None)
        trip.candidate.load.set_head(0 if head is None else head.prefill_tokens, now_s)


class Trip:
    """One request on one engine. Every way out ends it; what comes after the end does nothing.

    As a context manager it ends as failed when it was not ended before, at the time it was last told.
    """

    __slots__ = (
        "_chunks", "_dispatcher", "_forecast", "_generated", "_has_ended", "_is_prefill_only", "_is_queued",
        "_lesson", "_now_s", "_private_tokens", "_request", "_told", "candidate", "engine", "number", "prefill_tokens",
    )  # fmt: skip

    def __init__(
        self, dispatcher: Dispatcher, candidate: Candidate, request: RequestView, forecast: Forecast, now_s: float
    ) -> None:
        self._dispatcher, self.candidate, self._request, self._forecast = dispatcher, candidate, request, forecast
        self.engine, self.number, self._now_s = candidate.backend.key, dispatcher.next_number(), now_s
        self.prefill_tokens = 0
        """Prompt tokens counted as still to be computed."""
        self._chunks: tuple[int, ...] = ()
        self._told = NOTHING
        self._private_tokens = 0
        """KV cache that is its alone: the prompt's last, unfinished chunk and what it has generated."""
        self._generated = 0
        self._is_queued = self._has_ended = self._is_prefill_only = False
        self._lesson: Lesson | None = None

    @property
    def forecast(self) -> Forecast:
        """What was predicted when it began."""
        return self._forecast

    def open(self, *, prefill_only: bool, decode_only: bool) -> None:
        """Called once, by `Dispatcher.begin`."""
        dispatcher, now_s = self._dispatcher, self._now_s
        total = prompt_tokens(self._request)
        self._chunks = chunks_of(self._request)
        self._is_prefill_only = prefill_only
        if not decode_only:
            self.prefill_tokens = round(self._forecast.uncached_tokens)
            self._lesson = Lesson(self._forecast, now_s)
        dispatcher.meters.settle(self.engine, now_s)
        self._private_tokens = max(total - len(self._chunks) * CHUNK_TOKENS, 0)
        held = dispatcher.hold(self.engine, self._chunks) + self._private_tokens
        self._tell(Counts(1, self.prefill_tokens, 0, total, held))
        if not decode_only:
            self._is_queued = True
            dispatcher.queue(self, now_s)
        dispatcher.knowledge.routed(self._request, self.engine, now_s)

    def first_token(self, now_s: float) -> None:
        """Its first token, or the first byte of its answer, is here."""
        if self._has_ended or self._told.streaming:
            return
        if self._lesson is not None:
            self._lesson.first_token(self.candidate, self._dispatcher.rates, now_s)
        self.pass_prefill(now_s)

    def pass_prefill(self, now_s: float) -> None:
        """Its prompt is computed, seen or not."""
        if self._has_ended or self._told.streaming:
            return
        self._now_s = max(now_s, self._now_s)
        self._dispatcher.meters.settle(self.engine, now_s)
        self._tell(Counts(0, -self._told.prefill_tokens, 1))
        self._leave_queue(now_s)
        if self._lesson is not None:
            self._lesson.decodes(self._dispatcher.meters.read(self.engine), now_s)

    def progress(self, tokens: int) -> None:
        """So many more tokens have been generated. Cheap; may be left out."""
        self._generated += tokens
        if self._generated >= PROGRESS_TOKENS and not self._has_ended:
            grown, self._generated = self._generated, 0
            self._private_tokens += grown
            self._tell(Counts(0, 0, 0, grown, grown))

    def end(self, now_s: float, *, usage: Usage | None, succeeded: bool) -> None:
        """It is over on this engine; `usage` is what the engine said of it, if it did."""
        if self._has_ended:
            return
        self._has_ended = True
        dispatcher = self._dispatcher
        dispatcher.ended(self)
        dispatcher.meters.settle(self.engine, now_s)
        self._leave_queue(now_s)
        freed = dispatcher.let_go(self.engine, self._chunks) + self._private_tokens
        # What it held alone when it began may be others' by now: only what nobody holds any more is free.
        dispatcher.loads.add(self.engine, NOTHING.minus(self._told._replace(kv_tokens=freed)))
        if succeeded and usage is not None:
            self._learn(usage, now_s)
        dispatcher.knowledge.finished(self._request, self.engine, now_s, succeeded=succeeded)

    def _learn(self, usage: Usage, now_s: float) -> None:
        dispatcher, backend = self._dispatcher, self.candidate.backend
        if not self._is_prefill_only:
            dispatcher.rates.observe_output(backend, usage.completion_tokens)
            if self._lesson is not None:
                area = dispatcher.meters.read(self.engine)
                self._lesson.ended(self.candidate, dispatcher.rates, area, usage.completion_tokens, now_s)
        if self._lesson is not None and usage.tells_cached and usage.prompt_tokens:
            off = abs(usage.cached_tokens - self._forecast.matched_tokens) / usage.prompt_tokens
            dispatcher.on_precision(self._request.model, max(1.0 - off, 0.0))

    def _tell(self, delta: Counts) -> None:
        self._told = self._told.plus(delta)
        self._dispatcher.loads.add(self.engine, delta)

    def _leave_queue(self, now_s: float) -> None:
        if self._is_queued:
            self._is_queued = False
            self._dispatcher.unqueue(self, now_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end(self._now_s, usage=None, succeeded=False)
