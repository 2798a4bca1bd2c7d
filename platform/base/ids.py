"""Chance as an argument. Only the composition root makes `SystemIds`; tests and simulations seed theirs."""

from __future__ import annotations

import random
import uuid
from typing import Protocol


class Ids(Protocol):
    def uid(self) -> str:
        """A new unique id in UUID form."""

    def random(self) -> float:
        """Uniform in [0, 1)."""


class SystemIds:
    def uid(self) -> str:
        return str(uuid.uuid4())

    def random(self) -> float:
        return random.random()


class SeededIds:
    """The same ids and numbers from the same seed."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def uid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def random(self) -> float:
        return self._random.random()
