"""Virtual time: a heap of callbacks, and a clock that production code takes for a real one.

Events of one instant run in the order in which they were asked for, so a run is a function of its inputs alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Coroutine, Generator
from typing import Any

Callback = Callable[[], object]
EVENTS_MAX = 200_000_000
"""A run of more events than this is taken for one that never ends."""


class Event:
    """A callback to come; `cancel` makes it nothing."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callback | None) -> None:
        self.callback = callback

    def cancel(self) -> None:
        self.callback = None


class EventLoop:
    """Runs callbacks in the order of their times. Satisfies `hekla.platform.base.clock.Clock`."""

    def __init__(self, start_unix_s: float = 1_750_000_000.0) -> None:
        self._start = start_unix_s
        self._now = 0.0
        self._order = 0
        self._heap: list[tuple[float, int, Event]] = []
        self.events = 0
        """Callbacks run so far."""

    def now(self) -> float:
        return self._start + self._now

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Only for coroutines given to `spawn`: nothing else is woken by this loop."""
        await _Pause(max(0.0, seconds))

    def at(self, time_s: float, callback: Callback) -> Event:
        """Call back at a monotonic time; a time that has passed means now."""
        event = Event(callback)
        self._order += 1
        heapq.heappush(self._heap, (max(time_s, self._now), self._order, event))
        return event

    def after(self, seconds: float, callback: Callback) -> Event:
        return self.at(self._now + seconds, callback)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that waits for nothing but this clock's `sleep`. Its exceptions leave `run`."""

        def resume() -> None:
            try:
                pause = coroutine.send(None)
            except StopIteration:
                return
            if not isinstance(pause, _Pause):
                coroutine.throw(TypeError(f"a simulated coroutine may only wait for the clock, not for {pause!r}"))
                return
            self.after(pause.seconds, resume)

        self.after(0.0, resume)

    def run(self, until_s: float = float("inf")) -> None:
        """Until nothing is left to do, or `until_s` has come (time then stands at `until_s`)."""
        heap = self._heap
        while heap and heap[0][0] <= until_s:
            time_s, _, event = heapq.heappop(heap)
            callback = event.callback
            if callback is None:
                continue
            self._now = time_s
            self.events += 1
            if self.events > EVENTS_MAX:
                raise RuntimeError(f"{EVENTS_MAX} events have run by {time_s:.3f} s: the simulation does not end")
            callback()
        if until_s != float("inf"):
            self._now = max(self._now, until_s)

    def __repr__(self) -> str:
        return f"EventLoop(t={self._now:.3f}s, {len(self._heap)} to come, {self.events} run)"


class _Pause:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __await__(self) -> Generator[_Pause, None, None]:
        yield self
