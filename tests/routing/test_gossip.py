"""Load told between ingress replicas: arithmetic, late and lost datagrams, expiry, and two real ingresses."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hekla.platform.base.clock import VirtualClock
from hekla.routing.config import GossipSettings, RoutingSettings
from hekla.routing.gossip import WIRE_VERSION, Datagram, Gossip, pack, unpack
from hekla.routing.load import Counts, LoadBook

SETTINGS = GossipSettings(host="127.0.0.1")


def test_older_news_of_a_peer_is_ignored() -> None:
    book = LoadBook()
    book.apply_peer("p", 5, {"e": Counts(3, 30, 1)}, now_s=0)
    book.apply_peer("p", 4, {"e": Counts(9, 9, 9), "f": Counts(1, 0, 0)}, now_s=0)
    assert book.load("e").peers == Counts(3, 30, 1)
    assert book.load("f").requests == 1, "it is news about f"


def test_a_silent_peer_is_forgotten_and_others_stay() -> None:
    book = LoadBook()
    book.apply_peer("gone", 1, {"e": Counts(5, 0, 0)}, now_s=0)
    book.apply_peer("alive", 1, {"e": Counts(2, 0, 0)}, now_s=2)
    book.expire(before_s=1)
    assert book.load("e").requests == 2
    book.check()


def test_engines_that_left_the_table_are_forgotten_when_idle() -> None:
    book = LoadBook()
    book.add("busy", Counts(1, 1))
    book.load("idle")
    book.forget(set())
    book.add("busy", Counts(-1, -1))
    assert "idle" not in repr(book.own())
    assert book.load("busy").own == Counts()


_steps = st.lists(
    st.tuples(st.sampled_from("pq"), st.integers(0, 9), st.sampled_from("ef"), st.integers(0, 5), st.integers(0, 9))
)


@given(_steps)
def test_sums_stay_right_whatever_peers_say_in_whatever_order(steps: Any) -> None:
    book = LoadBook()
    for peer, sequence, engine, requests, now_s in steps:
        book.apply_peer(peer, sequence, {engine: Counts(requests, requests * 10, 0)}, now_s=now_s)
        book.expire(before_s=now_s - 3)
        book.check()


def test_datagrams_stay_small_and_lose_nothing() -> None:
    counts = {f"namespace/a-rather-long-engine-name-{i}": Counts(i, 10**9, i) for i in range(500)}
    packed = list(pack("sender-" + "x" * 36, 7, counts, SETTINGS))
    assert max(map(len, packed)) <= SETTINGS.datagram_bytes_max
    unpacked = [unpack(data, SETTINGS) for data in packed]
    assert [datagram.sequence for datagram in unpacked] == list(range(7, 7 + len(packed)))
    merged = {engine: Counts(*count) for datagram in unpacked for engine, count in datagram.counts.items()}
    assert merged == counts


def test_datagrams_that_are_not_ours_are_refused() -> None:
    signed = dataclasses.replace(SETTINGS, key="secret")
    good = next(pack("s", 1, {"e": Counts(1, 0, 0)}, signed))
    assert unpack(good, signed) == Datagram(WIRE_VERSION, "s", 1, {"e": (1, 0, 0, 0, 0)})
    negative = next(pack("s", 1, {"e": Counts(-1, 0, 0)}, signed))
    for data in (b"", b"x" * 100, good[:-1], good[:-1] + b"\xff", negative):
        with pytest.raises(ValueError):
            unpack(data, signed)
    with pytest.raises(ValueError, match="signature"):
        unpack(good, SETTINGS)


async def test_a_lost_datagram_is_repaired_by_the_next_full_state(kit: Any) -> None:
    clock, told, heard = VirtualClock(), LoadBook(), LoadBook()
    listener = Gossip(heard, lambda: (), SETTINGS, clock=clock, sender="listener")
    await listener.start()
    peers: list[tuple[str, int]] = []
    speaker = Gossip(told, lambda: peers, SETTINGS, clock=clock, sender="speaker")
    await speaker.start()
    told.add("e", Counts(1, 40))
    await clock.advance(0.03)  # told to nobody: as good as lost
    peers.append(("127.0.0.1", listener.port))
    await clock.advance(1.0)
    await kit.until(lambda: heard.load("e").requests == 1, "heard")
    peers.clear()
    told.add("e", Counts(-1, -40))
    await clock.advance(0.03)  # the zero is lost too
    peers.append(("127.0.0.1", listener.port))
    await clock.advance(1.0)
    await kit.until(lambda: heard.load("e").requests == 0, "the zero is repeated")
    await speaker.stop()
    await listener.stop()


async def test_a_peer_that_dies_takes_its_load_with_it(kit: Any) -> None:
    clock, told, heard = VirtualClock(), LoadBook(), LoadBook()
    listener = Gossip(heard, lambda: (), SETTINGS, clock=clock, sender="listener")
    await listener.start()
    speaker = Gossip(told, lambda: [("127.0.0.1", listener.port)], SETTINGS, clock=clock, sender="speaker")
    await speaker.start()
    told.add("e", Counts(1))
    await clock.advance(0.03)
    await kit.until(lambda: heard.load("e").requests == 1, "heard")
    await speaker.stop()
    await clock.advance(4.1)
    assert heard.load("e").requests == 0
    await listener.stop()


async def test_two_ingresses_see_each_others_requests_and_spread_them(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    release = asyncio.Event()

    async def held(answer: Any) -> None:
        await answer.begin(content_type="text/event-stream")
        await answer.write(kit.event({"choices": [1]}))
        await release.wait()
        await answer.end()

    backends = [await start_backend(held) for _ in range(4)]
    ports: list[tuple[str, int]] = []
    settings = RoutingSettings(gossip=SETTINGS)
    sites = [await start_site(*kit.objects(*backends), settings=settings, peers=lambda: ports) for _ in range(2)]
    ports.extend(("127.0.0.1", site.ingress.gossip.port) for site in sites)
    async with asyncio.TaskGroup() as group:
        for i in range(8):
            group.create_task(sites[i % 2].stream())
            total = i + 1

            def seen_by_both(total: int = total) -> bool:
                loads = [[site.ingress.loads.load(f"default/e{k}") for k in range(4)] for site in sites]
                return all(sum(load.streaming for load in row) == total for row in loads)

            await kit.until(seen_by_both, "both know of every request")
        assert [len(backend.requests) for backend in backends] == [2, 2, 2, 2]
        release.set()
    await kit.until(lambda: all(not site.ingress.loads.load("default/e0").requests for site in sites), "all over")


def test_engines_that_only_a_datagram_named_are_forgotten_with_it() -> None:
    book = LoadBook()
    book.forget({"known"})
    for i in range(1000):
        book.apply_peer("p", i + 1, {f"made-up-{i}": Counts(1, 1, 0)}, now_s=0.0)
    book.add("left-the-table", Counts(1))
    book.load("known")
    book.expire(1.0)
    assert set(book.engines) == {"known", "left-the-table"}
    book.add("left-the-table", Counts(-1))
    book.expire(1.0)
    assert set(book.engines) == {"known"}
    book.check()
