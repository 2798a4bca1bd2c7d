"""Trips of the ingress: the dispatcher's, with the time read from a clock and the outcome from the exchange."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from hekla.platform.base.clock import Clock
from hekla.routing.call import Call
from hekla.routing.scheduling.dispatch import Dispatcher, Trip
from hekla.routing.scheduling.interface import Candidate


class Trips:
    def __init__(self, dispatcher: Dispatcher, clock: Clock) -> None:
        self._dispatcher, self._clock = dispatcher, clock

    def begin(
        self, call: Call, candidate: Candidate, *, prefill_only: bool = False, decode_only: bool = False
    ) -> LiveTrip:
        """The call goes to the candidate now; to be used as a context manager."""
        streamed = prefill_only or call.view.body.is_true("stream")
        trip = self._dispatcher.begin(
            candidate, call.view, now_s=self._clock.monotonic(),
            prefill_only=prefill_only, decode_only=decode_only, streamed=streamed,
        )  # fmt: skip
        return LiveTrip(trip, call, self._clock, prefill_only=prefill_only)


class LiveTrip:
    """One request on one engine."""

    __slots__ = ("_call", "_clock", "_has_begun", "_is_prefill_only", "_trip", "progress")

    def __init__(self, trip: Trip, call: Call, clock: Clock, *, prefill_only: bool) -> None:
        self._trip, self._call, self._clock, self._is_prefill_only = trip, call, clock, prefill_only
        self._has_begun = False
        self.progress = trip.progress
        """Called with the number of further tokens."""

    @property
    def forecast_s(self) -> float:
        """How long its first token was thought to take."""
        return self._trip.forecast.ttft_s

    @property
    def uncached_tokens(self) -> float:
        """Of its prompt, not in the engine's cache as far as was known."""
        return self._trip.forecast.uncached_tokens

    def first_token(self) -> None:
        """The first byte of a stream is here."""
        if 200 <= self._call.exchange.upstream_status < 300:
            self._has_begun = True
            self._trip.first_token(self._clock.monotonic())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it. When the client left a stream, or it broke, the engine has the prompt in its cache all the same."""
        exchange = self._call.exchange
        is_whole = kind is None and 200 <= exchange.upstream_status < 300 and not exchange.error_kind
        if is_whole and self._is_prefill_only:
            self.first_token()
        usage = exchange.usage if is_whole and not self._is_prefill_only else None
        self._trip.end(self._clock.monotonic(), usage=usage, succeeded=is_whole or self._has_begun)
