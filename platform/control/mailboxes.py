"""One mailbox per key: which key to reconcile next, and when to try again. Pure: no clock, no task, no store.

A key that is not at rest is in one of these states::

    wake ──> ready ──take──> running ──done──> at rest   Succeeded
               ^                │ ├──────────> waiting   Succeeded(again_s), Failed
               │                │ └──────────> parked    Refused
               └────────────────┘ woken while running: once more, however often it was woken

What wakes a key matters. A controller that writes its object's status is woken by its own write; were that to cut a
backoff short, a failing reconcile that reports its failure would spin. So a failing key's backoff ends early only for
news from elsewhere, and a parked key is woken only when its object asks for something else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from hekla.platform.api.meta import Ref
from hekla.platform.control.timers import Timers

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 60.0
"""The wait after a failure doubles from the first to the most, less a jitter of up to half of it."""


class Cause(IntEnum):
    """Why a key is woken, by weight."""

    OBSERVED = 1
    """Its own object's status changed, it was listed again, or a time came."""
    RELATED = 2
    """Another object that concerns it changed."""
    CHANGED = 3
    """Its own object is new, gone, or asks for something else."""


@dataclass(frozen=True)
class Succeeded:
    again_s: float | None = None
    """Seconds after which to reconcile once more, whatever happens before."""


@dataclass(frozen=True)
class Failed:
    delay_s: float | None = None
    """Seconds the failure asked to wait; None: the backoff's."""


@dataclass(frozen=True)
class Refused:
    """Trying again can't help until the object itself changes."""


Outcome = Succeeded | Failed | Refused


class Mailboxes:
    """The mailboxes of one controller. Times are seconds of one monotonic clock; `chance` gives numbers in [0, 1)."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._ready: dict[Ref, None] = {}  # in order of arrival
        self._running: dict[Ref, Cause | None] = {}  # what woke it since it was taken
        self._parked: set[Ref] = set()
        self._failures: dict[Ref, int] = {}
        self._retries = Timers()
        self._agains = Timers()

    @property
    def depth(self) -> int:
        """Keys ready to run."""
        return len(self._ready)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def failing(self) -> int:
        """Keys whose last reconcile failed."""
        return len(self._failures)

    @property
    def parked(self) -> int:
        """Keys that wait for their object to change."""
        return len(self._parked)

    @property
    def is_idle(self) -> bool:
        """Nothing runs and nothing is ready; times may be set."""
        return not self._ready and not self._running

    def wake(self, key: Ref, cause: Cause) -> None:
        if key in self._running:
            self._running[key] = max(cause, self._running[key] or cause)
        elif cause >= self._needed(key):
            self._parked.discard(key)
            self._ready[key] = None

    def take(self) -> Ref | None:
        """The next key to reconcile, now running; None when none is ready."""
        key = next(iter(self._ready), None)
        if key is not None:
            del self._ready[key]
            self._running[key] = None
            self._retries.drop(key)
        return key

    def done(self, key: Ref, outcome: Outcome, now_s: float) -> None:
        """The running key's reconcile ended at `now_s`."""
        assert key in self._running, f"{key} is done and did not run"
        cause = self._running.pop(key)
        match outcome:
            case Succeeded(again_s):
                self._failures.pop(key, None)
                if again_s is not None:
                    # The earlier time stays: it was promised, and one chain of times per key is enough.
                    self._agains.set_earlier(key, now_s + again_s)
            case Failed(delay_s):
                self._retries.set(key, now_s + self._backoff_s(key, delay_s))
            case Refused():
                self._failures.pop(key, None)
                self._agains.drop(key)
                self._parked.add(key)
        if cause is not None:
            self.wake(key, cause)

    def wake_due(self, now_s: float) -> None:
        """Make ready whose time has come."""
        due = sorted([*self._retries.pop_due(now_s), *self._agains.pop_due(now_s)])
        for _, key in due:
            self.wake(key, Cause.OBSERVED)

    def next_due_s(self) -> float | None:
        """When `wake_due` will next have something to do."""
        times = [at for at in (self._retries.next_s(), self._agains.next_s()) if at is not None]
        return min(times, default=None)

    def check(self) -> None:
        """The invariants; raises AssertionError."""
        assert not self._ready.keys() & self._running.keys(), "a key is ready and running"
        assert not self._parked & (self._ready.keys() | self._running.keys()), "a parked key is ready or running"
        assert not any(key in self._agains or key in self._retries for key in self._parked), "a parked key has a time"
        assert not any(key in self._retries for key in self._running), "a running key waits for its retry"

    def _needed(self, key: Ref) -> Cause:
        """The least cause that wakes the key now."""
        if key in self._parked:
            return Cause.CHANGED
        return Cause.RELATED if key in self._retries else Cause.OBSERVED

    def _backoff_s(self, key: Ref, asked_s: float | None) -> float:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        if asked_s is not None:
            return max(asked_s, BACKOFF_FIRST_S)
        # The power is bounded before it is computed: a key may fail for months.
        whole = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(failures, 32))
        return whole * (1 - self._chance() / 2)

    def __repr__(self) -> str:
        counts = f"{self.depth} ready, {self.running} running, {self.failing} failing, {self.parked} parked"
        return f"Mailboxes({counts})"
