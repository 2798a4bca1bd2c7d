"""Both twins of the store, made alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.ids import SeededIds
from hekla.platform.store.interface import Store
from hekla.platform.store.memory import MemoryStore
from hekla.platform.store.sqlite import SqliteStore

MakeStore = Callable[[VirtualClock], Store]


@pytest.fixture(params=["memory", "sqlite"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    if request.param == "memory":
        return lambda clock: MemoryStore(clock, SeededIds(1))
    return lambda clock: SqliteStore(tmp_path / "store.db", clock, SeededIds(1))


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(start=1_750_000_000.0)


@pytest.fixture
def store(make_store: MakeStore, clock: VirtualClock) -> Iterator[Store]:
    made = make_store(clock)
    yield made
    made.close()
