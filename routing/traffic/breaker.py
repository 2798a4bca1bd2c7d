"""A circuit breaker for one engine: closed, open for a growing time, then half open for a few real requests. Pure.

    closed --(failures in a row, or their share)--> open --(time)--> probing --(successes)--> closed
                                                     ^                  |
                                                     +----(a failure)---+

An answer's first byte is the success: a stream may last an hour, and an engine that began to answer is no broken one. That it
is lost afterwards is a failure of its own.
"""

from __future__ import annotations

from enum import Enum

from hekla.routing.traffic.settings import EjectionSettings

BUCKETS = 10


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


ALLOWED = {
    State.CLOSED: {State.OPEN},
    State.OPEN: {State.PROBING},
    State.PROBING: {State.OPEN, State.CLOSED},
}


class Outcomes:
    """Successes and failures within a sliding window, in `BUCKETS` steps."""

    __slots__ = ("_counts", "_step", "failures", "successes")

    def __init__(self) -> None:
        self._counts = [(0, 0)] * BUCKETS
        self._step = 0
        self.successes = self.failures = 0

    def add(self, now_s: float, window_s: float, *, failed: bool) -> None:
        self._advance(int(now_s / window_s * BUCKETS))
        good, bad = self._counts[self._step % BUCKETS]
        self._counts[self._step % BUCKETS] = (good, bad + 1) if failed else (good + 1, bad)
        self.failures += failed
        self.successes += not failed

    def _advance(self, step: int) -> None:
        for passed in range(max(self._step + 1, step - BUCKETS + 1), step + 1):
            good, bad = self._counts[passed % BUCKETS]
            self.successes -= good
            self.failures -= bad
            self._counts[passed % BUCKETS] = (0, 0)
        self._step = max(self._step, step)


class Breaker:
    """One engine's. `state` says how it stands, `until_s` when it may be tried again."""

    __slots__ = ("_outcomes", "closed_s", "ejections", "in_a_row", "probes", "proven", "state", "until_s")

    def __init__(self) -> None:
        self.state = State.CLOSED
        self.until_s = float("-inf")
        self.ejections = 0
        """Ejections that count for the length of the next one."""
        self.in_a_row = 0
        """Failures since the last success."""
        self.probes = 0
        """Requests under way to a half-open engine, without a verdict."""
        self.proven = 0
        """Their successes in a row."""
        self.closed_s = float("-inf")
        self._outcomes = Outcomes()

    def tick(self, now_s: float) -> None:
        """Let time pass: an ejection may be over."""
        if self.state is State.OPEN and now_s >= self.until_s:
            self._become(State.PROBING)
            self.probes = self.proven = 0

    def succeeded(self, now_s: float, settings: EjectionSettings) -> None:
        self.in_a_row = 0
        self._outcomes.add(now_s, settings.window_s, failed=False)
        if self.state is State.PROBING:
            self.proven += 1
            if self.proven >= settings.probes_needed:
                self._become(State.CLOSED)
                self.closed_s = now_s
                self._outcomes = Outcomes()

    def failed(self, now_s: float, settings: EjectionSettings) -> bool:
        """True when this failure ejects the engine."""
        self.in_a_row += 1
        self._outcomes.add(now_s, settings.window_s, failed=True)
        if self.state is State.PROBING or (self.state is State.CLOSED and self._is_failing(settings)):
            self.eject(now_s, settings)
            return True
        return False

    def eject(self, now_s: float, settings: EjectionSettings) -> None:
        """Out for a while, doubled with each time; every `max_s` of health forgives one."""
        if self.state is State.CLOSED and self.ejections:
            self.ejections = max(0, self.ejections - int((now_s - self.closed_s) / settings.max_s))
        self._become(State.OPEN)
        self.until_s = now_s + min(settings.max_s, settings.base_s * 2.0 ** min(self.ejections, 32))
        self.ejections += 1
        self.in_a_row = 0
        self._outcomes = Outcomes()

    def hear(self, until_s: float) -> bool:
        """A peer has ejected the engine until then; True when that is news. It proves itself here as after an own one."""
        if self.state is not State.CLOSED:
            return False
        self._become(State.OPEN)
        self.until_s = until_s
        self.in_a_row = 0
        self._outcomes = Outcomes()
        return True

    def _is_failing(self, settings: EjectionSettings) -> bool:
        if settings.consecutive_failures and self.in_a_row >= settings.consecutive_failures:
            return True
        bad, total = self._outcomes.failures, self._outcomes.failures + self._outcomes.successes
        percent = settings.failure_percent
        return bool(percent) and total >= settings.requests_min and 100 * bad >= percent * total

    def _become(self, state: State) -> None:
        assert state in ALLOWED[self.state], f"{self!r} can't become {state.value}"
        self.state = state

    def __repr__(self) -> str:
        return (
            f"Breaker({self.state.value}, ejections={self.ejections}, in_a_row={self.in_a_row}, probes={self.probes})"
        )
