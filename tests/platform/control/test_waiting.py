"""Waiting with a deadline, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.errors import Temporary
from hekla.platform.control.waiting import until


async def test_it_returns_the_first_true_answer() -> None:
    clock = VirtualClock()
    answers = iter([0, None, "", "yes"])
    waiting = asyncio.gather(until(lambda: next(answers), clock, 10, 2))
    await clock.advance(6)
    assert waiting.done()
    assert (await waiting)[0] == "yes"


async def test_it_waits_for_checks_that_are_coroutines() -> None:
    async def check() -> int:
        return 7

    assert await until(check, VirtualClock(), 10) == 7


async def test_it_gives_up_at_the_deadline_with_the_last_answer_and_asks_there_once_more() -> None:
    clock = VirtualClock()
    asked = []

    def check() -> list[int]:
        asked.append(clock.monotonic())
        return []

    waiting = asyncio.gather(until(check, clock, 5, 2, what="the engine"), return_exceptions=True)
    await clock.advance(5)
    (error,) = await waiting
    assert isinstance(error, Temporary)
    assert str(error) == "the engine did not come true within 5 s; last answer: []"
    assert asked == [0, 2, 4, 5]


async def test_what_the_check_raises_comes_through() -> None:
    def check() -> bool:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await until(check, VirtualClock(), 5)
