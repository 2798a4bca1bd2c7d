"""Trips: counted at once, learned from, and gone without a trace however they end."""

from __future__ import annotations

import random
from typing import Any

import pytest

from hekla.routing.load import Counts
from hekla.routing.usage import Usage


def test_a_trip_counts_from_its_choice_until_its_end(sched: Any) -> None:
    bench = sched.bench(["a"])
    bench.knowledge.holds = {"a": 300}
    trip = bench.dispatcher.begin(bench.plan(sched.request(1000)).server, sched.request(1000), now_s=0.0)
    assert bench.loads.load("a").own == Counts(1, 700, 0, 1000, 1000)
    trip.first_token(1.0)
    assert bench.loads.load("a").own == Counts(1, 0, 1, 1000, 1000)
    trip.progress(64)
    assert bench.loads.load("a").own == Counts(1, 0, 1, 1064, 1064)
    for _ in range(2):
        trip.end(2.0, usage=Usage(1000, 64), succeeded=True)
        trip.first_token(3.0)
        trip.progress(1000)
    assert bench.loads.load("a").own == Counts()
    assert bench.knowledge.told == [("routed", "a"), ("succeeded", "a")]


def test_a_trip_left_by_an_exception_ends_as_failed(sched: Any) -> None:
    bench = sched.bench(["a"])
    with pytest.raises(ConnectionError), bench.dispatcher.begin(bench.candidate("a"), sched.request(), now_s=0.0):
        raise ConnectionError
    assert bench.loads.load("a").own == Counts()
    assert bench.knowledge.told == [("routed", "a"), ("failed", "a")]


def test_a_prefix_that_several_share_is_held_once(sched: Any) -> None:
    bench = sched.bench(["a"])
    views = [sched.request(1024, text="shared"), sched.request(1024, text="shared"), sched.request(1024, text="other")]
    trips = [bench.dispatcher.begin(bench.candidate("a"), view, now_s=0.0) for view in views]
    assert bench.loads.load("a").kv_tokens == 2048
    assert bench.loads.load("a").context_tokens == 3072
    trips[0].end(1.0, usage=None, succeeded=False)
    assert bench.loads.load("a").kv_tokens == 2048, "the second still holds it"
    for trip in trips:
        trip.end(1.0, usage=None, succeeded=False)
    assert bench.loads.load("a").own == Counts()


def test_a_decode_engine_holds_memory_but_has_no_prefill(sched: Any) -> None:
    bench = sched.bench(["p", "d"])
    view = sched.request(1000)
    prefill = bench.dispatcher.begin(bench.candidate("p"), view, now_s=0.0, prefill_only=True)
    decode = bench.dispatcher.begin(bench.candidate("d"), view, now_s=0.0, decode_only=True)
    assert bench.loads.load("p").prefill_tokens == 1000
    assert bench.loads.load("d").own == Counts(1, 0, 0, 1000, 1000)
    prefill.first_token(1.0)
    prefill.end(1.0, usage=None, succeeded=True)
    decode.first_token(1.1)
    decode.end(2.0, usage=Usage(1000, 50, 1000, tells_cached=True), succeeded=True)
    assert bench.loads.load("p").own == bench.loads.load("d").own == Counts()
    assert bench.precision == [], "its cached tokens came from the other engine: nothing was predicted of them"


def test_an_answer_that_is_not_streamed_passes_its_prefill_when_it_was_forecast_to(sched: Any) -> None:
    bench = sched.bench(["a"])
    trip = bench.dispatcher.begin(bench.candidate("a"), sched.request(1000), now_s=0.0, streamed=False)
    bench.dispatcher.advance(0.99)
    assert bench.loads.load("a").prefill_tokens == 1000
    bench.dispatcher.advance(1.01)
    assert bench.loads.load("a").own[:3] == (1, 0, 1)
    trip.end(2.0, usage=Usage(1000, 50), succeeded=True)
    assert bench.loads.load("a").own == Counts()


def test_trips_teach_how_fast_their_engine_is(sched: Any) -> None:
    bench, now_s = sched.bench(["fast", "slow"]), 0.0
    for _ in range(60):
        for engine, tokens_s, step_s in (("fast", 8000, 0.005), ("slow", 1000, 0.02)):
            trip = bench.dispatcher.begin(bench.candidate(engine), sched.request(2000), now_s=now_s)
            first_s = now_s + 2000 / tokens_s
            trip.first_token(first_s)
            trip.end(first_s + 99 * step_s, usage=Usage(2000, 100), succeeded=True)
        now_s += 10.0
    fast, slow = bench.rates.rates(bench.backends[0]), bench.rates.rates(bench.backends[1])
    assert 2000 / fast.prefill_tokens_s + fast.overhead_s == pytest.approx(0.25, rel=0.2)
    assert 2000 / slow.prefill_tokens_s + slow.overhead_s == pytest.approx(2.0, rel=0.2)
    assert (fast.step_s(1, 2000), slow.step_s(1, 2000)) == pytest.approx((0.005, 0.02), rel=0.2)
    assert fast.output_tokens == pytest.approx(100, rel=0.05)
    error = bench.rates.errors()["kind"]
    assert error.ttft < 0.5
    assert bench.plan(sched.request(2000), now_s=now_s).server.backend.key == "fast"
    assert bench.loads.load("fast").ttft_s == pytest.approx(0.25, rel=0.01)


def test_failed_trips_teach_nothing(sched: Any) -> None:
    bench = sched.bench(["a"])
    before = bench.rates.rates(bench.backends[0])
    for i in range(50):
        with bench.dispatcher.begin(bench.candidate("a"), sched.request(), now_s=float(i)):
            pass
    assert bench.rates.rates(bench.backends[0]) == before


@pytest.mark.parametrize(
    ("usage", "precision"),
    [
        (Usage(1000, 5, 600, tells_cached=True), [1.0]),
        (Usage(1000, 5, 100, tells_cached=True), [0.5]),
        (Usage(1000, 5, 0, tells_cached=True), [0.4]),
        (Usage(1000, 5, 0), []),
    ],
)
def test_cached_tokens_are_compared_with_what_was_predicted(sched: Any, usage: Usage, precision: list[float]) -> None:
    bench = sched.bench(["a"])
    bench.knowledge.holds = {"a": 600}
    trip = bench.dispatcher.begin(bench.candidate("a"), sched.request(1000), now_s=0.0)
    trip.first_token(0.4)
    trip.end(1.0, usage=usage, succeeded=True)
    assert bench.precision == pytest.approx(precision)


def test_engines_that_leave_the_table_leave_nothing_behind(sched: Any) -> None:
    bench = sched.bench(["a", "b"])
    bench.plan(sched.request())
    bench.loads.forget({"b"})
    bench.dispatcher.forget({"b"})
    assert ("forgotten", "a") in bench.knowledge.told
    stale = bench.candidate("b").load
    bench.loads.forget(set())
    stale.ejected = True
    assert not bench.loads.load("c").ejected, "its row is another's now"


@pytest.mark.parametrize("seed", range(20))
def test_whatever_order_trips_end_in_the_load_is_what_is_in_flight(sched: Any, seed: int) -> None:
    bench, chance, now_s, trips = sched.bench(["a", "b", "c"]), random.Random(seed), 0.0, []
    for _ in range(400):
        now_s += chance.uniform(0, 0.3)
        what = chance.random()
        if what < 0.45:
            view = sched.request(chance.choice((10, 700, 3000)), text=chance.choice(("x", "y", "zz")))
            kind = chance.choice(({}, {"streamed": False}, {"decode_only": True}, {"prefill_only": True}))
            bench.dispatcher.advance(now_s)
            trips.append(bench.dispatcher.begin(bench.candidate(chance.choice("abc")), view, now_s=now_s, **kind))
        elif trips:
            trip = trips[chance.randrange(len(trips))]
            if what < 0.6:
                trip.first_token(now_s)
            elif what < 0.75:
                trip.progress(chance.randrange(200))
            else:
                trip.end(now_s, usage=Usage(10, 10), succeeded=chance.random() < 0.8)
                trips.remove(trip)
        bench.loads.check()
    for trip in trips:
        trip.end(now_s, usage=None, succeeded=False)
    bench.loads.check()
    assert bench.loads.own() == {}
