"""A small actor class whose doings are told from outside; contract tests and demonstrations start it."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

from hekla.platform.base.errors import Temporary


class ScriptedActor:
    """Counts, waits, fails and ends on request."""

    def __init__(self, start: int = 0, fail: str = "") -> None:
        if fail:
            raise RuntimeError(fail)
        self._count = start
        self._told = asyncio.Event()

    async def add(self, amount: int) -> int:
        self._count += amount
        return self._count

    async def echo(self, value: Any) -> Any:
        return value

    async def pid(self) -> int:
        return os.getpid()

    async def env(self, name: str) -> str:
        return os.environ.get(name, "")

    async def wait_told(self) -> int:
        """Return the count once `tell` was called."""
        await self._told.wait()
        return self._count

    async def tell(self) -> None:
        self._told.set()

    async def refuse(self, message: str, delay_s: float) -> None:
        raise Temporary(message, delay_s)

    async def refuse_unpicklably(self, message: str) -> None:
        raise _Unpicklable(message, lambda: None)

    async def unpicklable(self) -> Any:
        return threading.Lock()


class _Unpicklable(Exception):
    def __init__(self, message: str, held: object) -> None:
        super().__init__(message)
        self.held = held
