"""Waiting for something to become so, with a deadline."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

from hekla.platform.base.clock import Clock
from hekla.platform.base.errors import Temporary

T = TypeVar("T")


async def until(
    check: Callable[[], T | Awaitable[T]],
    clock: Clock,
    deadline_s: float,
    period_s: float = 0.1,
    *,
    what: str = "the condition",
) -> T:
    """Ask `check` every `period_s` seconds and return its first true answer.

    Raises Temporary with the last answer when `deadline_s` seconds have passed; asks once more at the deadline itself.
    """
    deadline = clock.monotonic() + deadline_s
    while True:
        left_s = deadline - clock.monotonic()
        answer = check()
        value: T = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if left_s <= 0:
            raise Temporary(f"{what} did not come true within {deadline_s:g} s; last answer: {value!r}")
        await clock.sleep(min(period_s, left_s))
