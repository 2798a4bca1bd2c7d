"""A pool's health: how many engines may be out at once, half-open probes, slow start, and what requests may not cause."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from hekla.routing.backend import Backend, ModelServer, PrefillGroup
from hekla.routing.load import LoadBook
from hekla.routing.traffic.breaker import State
from hekla.routing.traffic.health import HealthBook
from hekla.routing.traffic.settings import EjectionSettings, SlowStartSettings

EJECTION = EjectionSettings(consecutive_failures=2, base_s=10, probes_max=1, probes_needed=2)
NO_SLOW_START = SlowStartSettings(window_s=0)


class Pool:
    """A book over engines `e0`, `e1`, … of one ModelServer, and the load it writes to."""

    def __init__(self, count: int, ejection: EjectionSettings = EJECTION, **server: object) -> None:
        self.loads, self.events = LoadBook(), list[str]()
        self.book = HealthBook(ejection, NO_SLOW_START, self.loads.load, lambda _, event: self.events.append(event))
        self.backends = tuple(Backend(f"e{i}", f"http://{i}") for i in range(count))
        self.server = ModelServer(("default", "s"), "m", "vLLM", self.backends, **server)  # type: ignore[arg-type]
        self.book.took_engines(self.backends, 0.0)

    def fail(self, engine: str, now_s: float = 0.0, times: int = 2) -> None:
        for _ in range(times):
            self.book.begin(self.server, engine, now_s).failed(now_s)

    def ejected(self, now_s: float = 0.0) -> list[str]:
        self.book.mark(self.server, now_s)
        return [backend.key for backend in self.backends if self.loads.load(backend.key).ejected]


@pytest.fixture
def make_pool() -> Iterator[Callable[..., Pool]]:
    made: list[Pool] = []

    def make(count: int, **options: object) -> Pool:
        made.append(Pool(count, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for pool in made:
        pool.book.check()


def test_an_engine_that_fails_in_a_row_is_out_and_comes_back_by_probes(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(4)
    pool.fail("e1")
    assert pool.ejected(0.0) == ["e1"]
    assert pool.ejected(9.9) == ["e1"]
    assert pool.ejected(10.0) == [], "half open: a real request may go there"
    probe = pool.book.begin(pool.server, "e1", 10.0)
    assert pool.ejected(10.0) == ["e1"], "one probe at a time"
    probe.answered(10.5)
    assert pool.ejected(10.5) == []
    pool.book.begin(pool.server, "e1", 11.0).answered(11.1)
    assert pool.book.state("e1") is State.CLOSED
    assert pool.events == ["ejected", "probing", "recovered"]


def test_a_probe_that_fails_ejects_for_twice_as_long(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(4)
    pool.fail("e1")
    pool.ejected(10.0)
    pool.fail("e1", 10.0, times=1)
    assert pool.ejected(29.9) == ["e1"]
    assert pool.ejected(30.0) == []


def test_a_probe_without_a_verdict_makes_room_for_the_next(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(4)
    pool.fail("e1")
    pool.ejected(10.0)
    probe = pool.book.begin(pool.server, "e1", 10.0)
    probe.end()
    probe.end()
    assert pool.ejected(10.0) == []


def test_a_stream_that_answered_and_broke_is_a_success_and_a_failure_once(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(4)
    for _ in range(3):
        verdict = pool.book.begin(pool.server, "e1", 0.0)
        verdict.answered(0.0)
        verdict.failed(1.0)
        verdict.failed(1.0)
    assert pool.ejected() == [], "a success came between any two failures"


@pytest.mark.parametrize(("count", "out"), [(1, 0), (2, 1), (3, 1), (4, 2), (10, 5)])
def test_at_most_the_allowed_share_and_never_all_are_out(make_pool: Callable[..., Pool], count: int, out: int) -> None:
    pool = make_pool(count)
    for backend in pool.backends:
        pool.fail(backend.key)
    assert len(pool.ejected()) == out


def test_when_the_pool_shrinks_the_engine_due_first_is_taken_back(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(4)
    pool.fail("e0", 0.0)
    pool.fail("e1", 5.0)
    assert pool.ejected(5.0) == ["e0", "e1"]
    pool.backends = pool.backends[:3]
    pool.server = ModelServer(("default", "s"), "m", "vLLM", pool.backends)
    pool.book.took_engines(pool.backends, 5.0)
    assert pool.ejected(5.0) == ["e1"]


def test_prefill_and_decode_engines_are_pools_of_their_own(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(4)
    e = pool.backends
    groups = {"a": PrefillGroup((e[0],), (e[1],)), "b": PrefillGroup((e[2],), (e[3],))}
    pool.server = ModelServer(("default", "s"), "m", "vLLM", e, groups=groups)
    for key in ("e0", "e2", "e1", "e3"):
        pool.fail(key)
    assert len(pool.ejected()) == 2
    assert sum(key in ("e0", "e2") for key in pool.ejected()) == 1, "one of the two that prefill is left"


def test_a_model_servers_own_numbers_go_before_the_ingresss(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(4)
    pool.server = ModelServer(
        ("default", "s"), "m", "vLLM", pool.backends, ejection={"consecutive_failures": 5, "base_s": 1000}
    )
    pool.fail("e1", times=4)
    assert pool.ejected() == []
    pool.fail("e1", times=1)
    assert pool.ejected(999.0) == ["e1"], "longer than the ingress's longest, which gives way"


def test_without_ejection_nobody_is_out(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(4, ejection=EjectionSettings(enabled=False, consecutive_failures=1))
    pool.fail("e1", times=50)
    assert pool.ejected() == []


def test_an_engine_that_is_gone_is_forgotten_with_its_failures(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(4)
    pool.fail("e1")
    pool.ejected()
    pool.book.took_engines(pool.backends[2:], 1.0)
    pool.book.took_engines(pool.backends, 2.0)
    assert pool.ejected(2.0) == []


def test_an_engine_at_a_new_address_is_a_new_engine(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool(4)
    pool.fail("e1")
    moved = tuple(Backend(b.key, b.url + "/new") if b.key == "e1" else b for b in pool.backends)
    pool.book.took_engines(moved, 1.0)
    assert pool.ejected(1.0) == []


def test_a_slow_engine_is_out_only_where_latency_is_judged(make_pool: Callable[..., Pool]) -> None:
    for factor, expected in ((0.0, []), (3.0, ["e0"])):
        pool = make_pool(3, ejection=EjectionSettings(latency_factor=factor, latency_samples_min=30))
        for _ in range(40):
            for backend in pool.backends:
                verdict = pool.book.begin(pool.server, backend.key, 0.0, 0.2)
                verdict.answered(2.0 if backend.key == "e0" else 0.2)
        assert pool.ejected() == expected


def warming(window_s: float = 30.0) -> tuple[HealthBook, LoadBook, ModelServer]:
    loads = LoadBook()
    book = HealthBook(EJECTION, SlowStartSettings(window_s=window_s, share_min=0.1), loads.load)
    old, new = Backend("old", "http://1"), Backend("new", "http://2")
    book.took_engines([old], 0.0)
    book.took_engines([old, new], 100.0)
    return book, loads, ModelServer(("default", "s"), "m", "vLLM", (old, new))


def test_an_engine_that_joins_gets_its_share_slowly_and_those_of_the_first_table_at_once() -> None:
    book, loads, server = warming()
    shares = []
    for now_s in (100.0, 115.0, 130.0, 500.0):
        book.mark(server, now_s)
        shares.append((loads.load("old").warmup_share, loads.load("new").warmup_share))
    assert shares == [(1, 0.1), (1, 0.5), (1, 1), (1, 1)]


def test_without_a_window_a_new_engine_has_its_full_share() -> None:
    book, loads, server = warming(window_s=0.0)
    book.mark(server, 100.0)
    assert loads.load("new").warmup_share == 1
