from __future__ import annotations

import asyncio

import pytest

from hekla.platform.base.clock import Clock
from hekla.simulation.loop import EventLoop


def test_events_run_in_the_order_of_their_times_and_of_one_instant_as_they_were_asked_for(loop: EventLoop) -> None:
    seen: list[str] = []
    loop.at(2.0, lambda: seen.append("late"))
    loop.at(1.0, lambda: seen.append("first"))
    loop.at(1.0, lambda: seen.append("second"))
    loop.run()
    assert seen == ["first", "second", "late"]
    assert loop.monotonic() == 2.0


def test_a_cancelled_event_does_not_run(loop: EventLoop) -> None:
    loop.at(1.0, lambda: pytest.fail("it ran")).cancel()
    loop.run()
    assert loop.events == 0


def test_a_time_that_has_passed_means_now(loop: EventLoop) -> None:
    seen: list[float] = []
    loop.at(5.0, lambda: loop.at(1.0, lambda: seen.append(loop.monotonic())) and None)
    loop.run()
    assert seen == [5.0]


def test_a_run_stops_at_its_end_and_can_go_on(loop: EventLoop) -> None:
    seen: list[int] = []
    loop.at(1.0, lambda: seen.append(1))
    loop.at(3.0, lambda: seen.append(3))
    loop.run(until_s=2.0)
    assert (seen, loop.monotonic()) == ([1], 2.0)
    loop.run()
    assert seen == [1, 3]


def test_production_code_that_sleeps_on_a_clock_runs_in_virtual_time(loop: EventLoop) -> None:
    seen: list[float] = []

    async def tick(clock: Clock) -> None:
        for _ in range(3):
            await clock.sleep(600.0)
            seen.append(clock.monotonic())

    loop.spawn(tick(loop))
    loop.run()
    assert seen == [600.0, 1200.0, 1800.0]
    assert loop.now() - 1_750_000_000.0 == 1800.0


def test_a_coroutine_that_waits_for_anything_else_is_told_so(loop: EventLoop) -> None:
    async def wait() -> None:
        await asyncio.sleep(0)

    loop.spawn(wait())
    with pytest.raises(TypeError, match="may only wait for the clock"):
        loop.run()
