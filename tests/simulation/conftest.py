"""Small engines and workloads, and a listener that writes down what it hears."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hekla.deployments.simengine.scheduler import Limits
from hekla.deployments.simengine.steps import Linear, Transfer
from hekla.simulation.engine.core import Engine
from hekla.simulation.engine.sequence import Sequence as EngineSequence
from hekla.simulation.engine.spec import EngineSpec
from hekla.simulation.loop import EventLoop


class Listening:
    def __init__(self) -> None:
        self.firsts: list[int] = []
        self.ends: list[int] = []
        self.changes: list[int] = []

    def first_token(self, engine: Engine, sequence: EngineSequence) -> None:
        self.firsts.append(sequence.request.id)

    def finished(self, engine: Engine, sequence: EngineSequence) -> None:
        self.ends.append(sequence.request.id)

    def cache_changed(self, engine: Engine, changes: Sequence[int]) -> None:
        self.changes += changes
        engine.check()

    def progressed(self, engine: Engine) -> None: ...


@pytest.fixture
def loop() -> EventLoop:
    return EventLoop()


@pytest.fixture
def listener() -> Listening:
    return Listening()


@pytest.fixture
def small() -> EngineSpec:
    """64 blocks of 4 tokens; a step takes 10 ms, a prompt token 1 ms."""
    return EngineSpec(
        "small", Linear(10.0, 1.0, 0.0), 64, 4, Limits(8, 64, 256, max_loras=2), transfer=Transfer(1000, setup_ms=50.0),
        restore=Transfer(1000, setup_ms=20.0), lease_s=5.0,
    )  # fmt: skip
