"""Waiting for something to become so, with a deadline."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

from hekla.platform.base.clock import Clock
from hekla.platform.base.errors import Temporary

T = TypeVar("T")


@overload
async def until(
    check: Callable[[], Awaitable[T]], clock: Clock, deadline_s: float, period_s: float = ..., *, what: str = ...
) -> T: ...
@overload
async def until(
    check: Callable[[], T], clock: Clock, deadline_s: float, period_s: float = ..., *, what: str = ...
) -> T: ...
async def until(
    check: Callable[[], Any],
    clock: Clock,
    deadline_s: float,
    period_s: float = 0.1,
    *,
    what: str = "the condition",
) -> Any:
    """Ask `check`, a function or a coroutine function, every `period_s` seconds; returns its first true answer.

    Raises Temporary with the last answer when `deadline_s` seconds have passed; asks once more at the deadline itself.
    """
    deadline = clock.monotonic() + deadline_s
    while True:
        left_s = deadline - clock.monotonic()
        answer = check()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if left_s <= 0:
            raise Temporary(f"{what} did not come true within {deadline_s:g} s; last answer: {answer!r}")
        await clock.sleep(min(period_s, left_s))
