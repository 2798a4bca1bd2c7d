"""Over real sockets, against the simulated engine's own publisher and block pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from hekla.deployments.simengine.blocks import BlockPool, Identity, block_hash
from hekla.deployments.simengine.publisher import KvEventPublisher, KvEventsConfig
from hekla.platform.base.clock import SystemClock
from hekla.platform.base.tasks import TaskOwner
from hekla.routing.prefix.settings import EventSettings
from hekla.routing.prefix.stream import Begin
from hekla.routing.prefix.subscriber import EventSource, Heard, KvEventSubscriber

QUICK = EventSettings(probe_s=0.3, replay_timeout_s=1.0)
WORDS = "abcdefghijklmnopqrstuvwxyz"


class Engine:
    """A cache and its publisher, without the engine."""

    def __init__(
        self, folder: Path, *, blocks: int = 64, block_size: int = 4, replays: bool = True, **config: Any
    ) -> None:
        self.pool, self.size = BlockPool(blocks, block_size), block_size
        replay = f"ipc://{folder}/replay" if replays else None
        self.publisher = KvEventPublisher(
            KvEventsConfig(
                enable_kv_cache_events=True, endpoint=f"ipc://{folder}/pub", replay_endpoint=replay, **config
            ),
            SystemClock(),
        )
        self.source = EventSource(0, f"ipc://{folder}/pub", replay or "")
        self._tasks = TaskOwner("engine")
        self.publisher.serve_replays(self._tasks)

    def serve(self, prompt: str, *, tells: bool = True) -> None:
        """What an engine does with its cache for one request; when it does not tell, the batch is lost on the way."""
        tokens = list(map(ord, prompt))
        hashes: list[Any] = []
        for at in range(0, len(tokens) - self.size + 1, self.size):
            hashes.append(block_hash(hashes[-1] if hashes else None, tokens[at : at + self.size]))
        held = self.pool.match(hashes)
        self.pool.take(held)
        fresh = self.pool.allocate(len(hashes) - len(held))
        assert fresh is not None
        self.pool.store([*held, *fresh], hashes, len(held), tokens, Identity())
        self.pool.release([*held, *fresh])
        self.publish(tells=tells)

    def publish(self, *, tells: bool = True) -> None:
        events = self.pool.drain_events()
        if tells:
            self.publisher.publish(events)
        else:
            sender, self.publisher._pub = self.publisher._pub, Deaf()  # type: ignore[assignment]
            self.publisher.publish(events)
            self.publisher._pub = sender

    async def stop(self) -> None:
        await self._tasks.stop()
        self.publisher.close()


class Deaf:
    """A socket whose peer hears nothing."""

    def send_multipart(self, frames: Any, flags: int) -> None: ...


class Listening:
    def __init__(self, lab: Any, settings: EventSettings) -> None:
        self.lab, self.index = lab, lab.exact()
        self.beginnings: list[tuple[str, bool]] = []
        self.subscriber = KvEventSubscriber(settings, lab.hasher, self.take, clock=SystemClock())

    def take(self, heard: Heard) -> None:
        if isinstance(heard.news, Begin):
            self.beginnings.append((heard.engine, heard.news.is_complete))
            self.index.begin(heard.engine, heard.rank, is_complete=heard.news.is_complete)
        else:
            self.index.apply(heard.engine, heard.news.batch, heard.rank)

    def matched(self, prompt: str, engine: str = "e") -> int:
        return int(self.index.match(self.lab.request(prompt), self.lab.candidates(engine)).tokens[0])

    async def until(self, holds: Callable[[], bool], seconds: float = 20.0) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while not holds():
            assert asyncio.get_running_loop().time() < deadline, f"not in time: {self.index!r} {self.subscriber.counts}"
            await asyncio.sleep(0.01)
        self.index.check()


@pytest_asyncio.fixture
async def listening(lab: Any) -> AsyncIterator[Listening]:
    made = Listening(lab, QUICK)
    await made.subscriber.start()
    yield made
    await made.subscriber.stop()


@pytest.fixture
def make_engine(tmp_path: Path) -> Callable[..., Engine]:
    return lambda **options: Engine(tmp_path, **options)


async def test_what_was_cached_before_is_learned_by_a_replay(listening: Listening, make_engine: Any) -> None:
    engine = make_engine()
    engine.serve(WORDS)
    listening.subscriber.follow("e", [engine.source])
    await listening.until(lambda: listening.matched(WORDS + "0123456789") == 24)
    assert listening.beginnings == [("e", True)]
    assert listening.index.complete == {"e"}
    await engine.stop()


async def test_the_index_follows_the_engines_cache_through_evictions(listening: Listening, make_engine: Any) -> None:
    engine = make_engine(blocks=12)
    listening.subscriber.follow("e", [engine.source])
    for number in range(60):
        engine.serve(WORDS[number % 5 :] + str(number))
        await asyncio.sleep(0)
    await listening.until(lambda: listening.index.entries == len(engine.pool.cached_hashes()))
    assert listening.index.counts.orphans == 0
    await engine.stop()


async def test_a_cleared_cache_is_forgotten(listening: Listening, make_engine: Any) -> None:
    engine = make_engine()
    listening.subscriber.follow("e", [engine.source])
    engine.serve(WORDS)
    await listening.until(lambda: listening.index.entries == 6)
    assert engine.pool.clear()
    engine.publish()
    await listening.until(lambda: listening.index.entries == 0)
    await engine.stop()


async def test_lost_events_are_asked_for_again(listening: Listening, make_engine: Any) -> None:
    engine = make_engine()
    listening.subscriber.follow("e", [engine.source])
    engine.serve("aaaabbbb")
    await listening.until(lambda: listening.index.entries == 2)
    engine.serve("aaaabbbbcccc", tells=False)
    engine.serve("aaaabbbbccccdddd")
    await listening.until(lambda: listening.matched("aaaabbbbccccddddX") == 16)
    assert listening.index.counts.orphans == 0
    assert listening.beginnings == [("e", True)]
    await engine.stop()


async def test_a_lost_last_event_is_found_by_a_probe(listening: Listening, make_engine: Any) -> None:
    engine = make_engine()
    listening.subscriber.follow("e", [engine.source])
    engine.serve("aaaabbbb")
    await listening.until(lambda: listening.index.entries == 2)
    engine.serve("aaaabbbbcccc", tells=False)
    await listening.until(lambda: listening.matched("aaaabbbbccccX") == 12)
    await engine.stop()


async def test_events_beyond_the_engines_memory_start_the_index_anew(listening: Listening, make_engine: Any) -> None:
    engine = make_engine(buffer_steps=2)
    listening.subscriber.follow("e", [engine.source])
    engine.serve("aaaabbbb")
    await listening.until(lambda: listening.index.entries == 2)
    for letter in "cdefg":
        engine.serve(letter * 8, tells=False)
    engine.serve("h" * 8)
    await listening.until(lambda: listening.matched("h" * 9) == 8)
    assert listening.matched("aaaabbbbX") == 0
    assert listening.matched("g" * 9) == 8
    assert listening.beginnings == [("e", True), ("e", False)]
    assert listening.index.complete == set()
    await engine.stop()


async def test_an_engine_that_cannot_replay_is_followed_from_when_it_is_heard(
    listening: Listening, make_engine: Any
) -> None:
    engine = make_engine(replays=False)
    engine.serve("aaaabbbb")
    listening.subscriber.follow("e", [engine.source])
    for number in range(2000):
        engine.serve(f"{number:04}" * 2)
        await asyncio.sleep(0.005)
        if listening.index.entries:
            break
    assert listening.beginnings == [("e", False)]
    assert listening.matched("aaaabbbbX") == 0
    await engine.stop()


async def test_a_restarted_engine_is_heard_again_with_an_empty_cache(listening: Listening, make_engine: Any) -> None:
    engine = make_engine()
    listening.subscriber.follow("e", [engine.source])
    engine.serve("aaaabbbb")
    engine.serve("aaaabbbbcccc")
    await listening.until(lambda: listening.index.entries == 3)
    await engine.stop()
    again = make_engine()
    again.serve("xxxxyyyy")
    await listening.until(lambda: listening.matched("xxxxyyyyX") == 8)
    assert listening.matched("aaaabbbbX") == 0
    assert listening.index.complete == {"e"}
    await again.stop()


async def test_an_engine_dropped_is_not_told_of_any_more(listening: Listening, make_engine: Any) -> None:
    engine = make_engine()
    listening.subscriber.follow("e", [engine.source])
    engine.serve("aaaabbbb")
    await listening.until(lambda: listening.index.entries == 2)
    listening.subscriber.drop("e")
    listening.index.forget("e")
    engine.serve("ccccdddd")
    listening.subscriber.follow("other", [engine.source])
    await listening.until(lambda: listening.matched("ccccddddX", "other") == 8)
    assert list(listening.index.engines) == ["other"]
    await engine.stop()


async def test_an_endpoint_that_is_none_harms_nobody(listening: Listening, make_engine: Any) -> None:
    engine = make_engine()
    listening.subscriber.follow("wrong", [EventSource(0, "tcp://not an address:x", "nonsense")])
    listening.subscriber.follow("e", [engine.source])
    engine.serve("aaaabbbb")
    await listening.until(lambda: listening.index.entries == 2)
    await engine.stop()


async def test_a_burst_larger_than_what_may_wait_arrives_whole(lab: Any, make_engine: Any) -> None:
    listening = Listening(lab, EventSettings(probe_s=0.3, pending_batches_max=4))
    await listening.subscriber.start()
    engine = make_engine(blocks=4096)
    listening.subscriber.follow("e", [engine.source])
    for number in range(500):
        engine.serve(f"{number:04}" * 2)
    await listening.until(lambda: listening.index.entries == 1000)
    await listening.subscriber.stop()
    await engine.stop()


async def test_stopping_twice_and_starting_again_is_allowed(lab: Any, make_engine: Any) -> None:
    listening = Listening(lab, QUICK)
    await listening.subscriber.stop()
    engine = make_engine()
    engine.serve("aaaabbbb")
    for _ in range(2):
        await listening.subscriber.start()
        listening.subscriber.follow("e", [engine.source])
        await listening.until(lambda: listening.index.entries == 2)
        await listening.subscriber.stop()
        listening.index.forget("e")
    await listening.subscriber.stop()
    await engine.stop()
