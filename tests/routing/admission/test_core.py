from __future__ import annotations

import itertools
from typing import Any

import pytest

from hekla.routing.admission.core import AdmissionCore
from hekla.routing.admission.interface import Admitted, Choice, Expired, Outcome, Reason, Spent, Waiting
from hekla.routing.admission.settings import AdmissionSettings, BoostSettings, Objective

NUMBERS = itertools.count()


def item(id_: str = "", **fields: Any) -> Waiting:
    defaults = {"arrived_s": 0.0, "uncached_tokens": 100, "output_tokens": 10}
    return Waiting(id=id_ or f"request {next(NUMBERS)}", **{**defaults, **fields})


def core(**settings: Any) -> AdmissionCore:
    return AdmissionCore(AdmissionSettings(**settings))


def fits(_: Waiting) -> Choice:
    return Choice("e")


def full(_: Waiting) -> Choice:
    return Choice("e", fits=False)


def nothing_ready(_: Waiting) -> None:
    return None


def admit(queue: AdmissionCore, count: int, now_s: float = 0.0, **options: Any) -> list[str]:
    """The next `count` to go, by id."""
    gone: list[str] = []

    def choose(_: Waiting) -> Choice:
        return Choice("e", fits=len(gone) < count)

    queue.next(now_s, choose, commit=lambda admitted: gone.append(admitted.item.id), **options)
    queue.check()
    return gone


def fill(queue: AdmissionCore, *items: Waiting, now_s: float = 0.0) -> None:
    for each in items:
        assert queue.offer(each, now_s) is None
    queue.check()


def expired(outcomes: list[Outcome]) -> dict[str, Reason]:
    return {o.item.id: o.reason for o in outcomes if isinstance(o, Expired)}


def test_an_empty_queue_admits_at_once() -> None:
    queue = core()
    admitted = queue.enter(item("a"), 5.0, fits)
    assert isinstance(admitted, Admitted) and admitted.choice.engine == "e"
    assert len(queue) == 0 and queue.in_flight == 1 and queue.next_wake_s is None


def test_what_does_not_fit_waits_and_goes_when_it_fits() -> None:
    queue = core()
    assert queue.enter(item("a"), 0.0, full) is None
    assert queue.next(1.0, full) == []
    (outcome,) = queue.next(2.0, fits)
    assert isinstance(outcome, Admitted) and outcome.item.id == "a" and outcome.waited_s == 2.0


def test_nobody_overtakes_what_waits_by_the_fast_path() -> None:
    queue = core()
    fill(queue, item("a"))
    assert queue.enter(item("b"), 0.0, fits) is None
    assert admit(queue, 9) == ["a", "b"]


def test_one_tenant_is_served_first_come_first_served() -> None:
    queue = core()
    fill(queue, *(item(str(n)) for n in range(5)))
    assert admit(queue, 9) == ["0", "1", "2", "3", "4"]


def test_deadlines_order_requests_within_a_tenant() -> None:
    queue = core(timeout_s=60.0)
    fill(
        queue, item("none"), item("late", deadline_s=50.0), item("soon", deadline_s=5.0), item("after", deadline_s=99.0)
    )
    assert admit(queue, 9) == ["soon", "late", "none", "after"]


def test_a_request_without_deadline_is_not_overtaken_for_ever() -> None:
    """It is due when the queue's timeout ends, so deadlines beyond that come later."""
    queue = core(timeout_s=10.0)
    fill(queue, item("none"), item("later", arrived_s=1.0, deadline_s=30.0))
    assert admit(queue, 1, now_s=1.0) == ["none"]


def test_higher_classes_go_first() -> None:
    queue = core()
    fill(queue, item("low", priority=-1), item("normal"), item("high", priority=7))
    assert admit(queue, 9) == ["high", "normal", "low"]


def test_a_lower_class_does_not_take_the_engine_a_higher_one_waits_for() -> None:
    queue = core()
    fill(queue, item("high", priority=1), item("low", priority=0), item("other", priority=0))
    engines = {"high": "a", "low": "a", "other": "b"}
    outcomes = queue.next(0.0, lambda w: Choice(engines[w.id], fits=w.id != "high"))
    assert [o.item.id for o in outcomes] == ["other"]


def test_tenants_take_turns() -> None:
    queue = core(quantum_requests=0.0)
    fill(queue, *(item(f"a{n}", tenant="a") for n in range(4)), *(item(f"b{n}", tenant="b") for n in range(4)))
    assert admit(queue, 9) == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3"]


def test_a_weight_of_two_is_served_twice_as_much() -> None:
    queue = core(quantum_requests=0.0)
    for n in range(30):
        fill(queue, item(f"a{n}", tenant="a", weight=2.0), item(f"b{n}", tenant="b", weight=1.0))
    gone = admit(queue, 30)
    assert sum(name.startswith("a") for name in gone) == 20


def test_service_is_counted_in_weighted_tokens_row_L12() -> None:
    """L12: weights 1 and 2, 100 in and 50 out are 200."""
    assert AdmissionSettings(input_weight=1.0, output_weight=2.0).cost(100, 50) == 200


def test_long_requests_count_for_more_than_short_ones() -> None:
    queue = core(quantum_requests=0.0)
    fill(queue, *(item(f"long{n}", tenant="a", uncached_tokens=980) for n in range(9)))
    fill(queue, *(item(f"short{n}", tenant="b", uncached_tokens=80) for n in range(90)))
    gone = admit(queue, 55)
    assert sum(name.startswith("long") for name in gone) == 5


def test_idleness_saves_nothing_up() -> None:
    """The counter of a tenant that comes back is lifted to the least of those that wait."""
    queue = core(quantum_requests=0.0)
    fill(queue, item("b", tenant="b"), *(item(f"a{n}", tenant="a") for n in range(50)))
    admit(queue, 40)
    fill(queue, *(item(f"b{n}", tenant="b") for n in range(50)))
    fill(queue, *(item(f"more{n}", tenant="a") for n in range(50)))
    gone = admit(queue, 20)
    assert 9 <= sum(name.startswith("b") for name in gone) <= 11


def test_service_while_nothing_waited_is_not_held_against_anyone() -> None:
    queue = core(quantum_requests=0.0)
    for n in range(1000):
        assert isinstance(queue.enter(item(f"quiet{n}", tenant="a"), 0.0, fits), Admitted)
    queue.enter(item("once", tenant="b"), 0.0, fits)
    for n in range(10):
        fill(queue, item(f"b{n}", tenant="b"), item(f"a{n}", tenant="a"))
    assert sum(name.startswith("a") for name in admit(queue, 10)) in (4, 5, 6)


def test_what_it_really_cost_replaces_the_estimate() -> None:
    queue = core(quantum_requests=0.0)
    queue.enter(item("a", tenant="a", output_tokens=10), 0.0, fits)
    fill(queue, *(item(f"a{n}", tenant="a") for n in range(30)), *(item(f"b{n}", tenant="b") for n in range(30)))
    queue.settle("a", Spent(100, 10 + 600), 0.0)  # 1200 more than thought: ten requests of 120
    gone = admit(queue, 20)
    assert sum(name.startswith("b") for name in gone) in (14, 15, 16)


def test_a_request_that_was_never_served_is_not_charged() -> None:
    queue = core(quantum_requests=0.0)
    fill(queue, item("a0", tenant="a"), item("a1", tenant="a"), item("b0", tenant="b", arrived_s=1.0))
    assert admit(queue, 1) == ["a0"]
    queue.settle("a0", Spent(0, 0), 0.0)
    assert admit(queue, 2) == ["a1", "b0"]


def test_cached_tokens_are_not_charged() -> None:
    queue = core(quantum_requests=0.0)
    fill(queue, *(item(f"a{n}", tenant="a", uncached_tokens=1000) for n in range(30)))
    fill(queue, *(item(f"b{n}", tenant="b", uncached_tokens=1000) for n in range(30)))
    gone: list[str] = []

    def choose(waiting: Waiting) -> Choice:
        return Choice("e", fits=len(gone) < 22, uncached_tokens=80 if waiting.tenant == "a" else None)

    queue.next(0.0, choose, commit=lambda admitted: gone.append(admitted.item.tenant))
    assert gone.count("a") >= 19


def test_within_the_quantum_the_best_cached_prefix_goes_first() -> None:
    queue = core(quantum_requests=2.0)
    queue.enter(item(tenant="z"), 0.0, fits)  # sets the mean cost: 120
    fill(queue, *(item(f"cold{n}", tenant="a") for n in range(3)), *(item(f"warm{n}", tenant="b") for n in range(6)))

    def cached(waiting: Waiting) -> int:
        return 100 if waiting.id.startswith("warm") else 0

    gone = admit(queue, 9, locality=cached)
    assert gone == ["warm0", "warm1", "warm2", "cold0", "warm3", "cold1", "warm4", "cold2", "warm5"]


def test_locality_looks_at_a_bounded_number_of_heads() -> None:
    queue = core(scan_max=8)
    for n in range(100):
        fill(queue, item(f"{n}", tenant=f"t{n % 3}"))
    asked: list[str] = []

    def cached(waiting: Waiting) -> int:
        asked.append(waiting.id)
        return 0

    admit(queue, 1, locality=cached)
    assert len(set(asked)) == len(asked) <= 3 * 8


def test_locality_does_not_starve_a_request_of_the_same_tenant() -> None:
    queue = core(bypass_max=5)
    fill(queue, item("cold"), *(item(f"warm{n}") for n in range(50)))
    gone = admit(queue, 10, locality=lambda w: 0 if w.id == "cold" else 100)
    assert gone.index("cold") == 5


def test_what_does_not_fit_is_overtaken_by_what_does() -> None:
    queue = core()
    fill(queue, item("large"), item("small"))
    outcomes = queue.next(0.0, lambda w: Choice("a" if w.id == "large" else "b", fits=w.id == "small"))
    assert [o.item.id for o in outcomes] == ["small"]


def test_an_engine_is_kept_free_for_what_was_overtaken_too_often() -> None:
    queue = core(bypass_max=3, tries_max=9)
    fill(queue, item("large"), *(item(f"s{n}") for n in range(9)))
    gone = [o.item.id for o in queue.next(0.0, lambda w: Choice("e", fits=w.id != "large"))]
    assert gone == ["s0", "s1", "s2"]
    fill(queue, item("elsewhere"))
    free = queue.next(0.0, lambda w: Choice("e2" if w.id == "elsewhere" else "e", fits=w.id != "large"))
    assert [o.item.id for o in free] == ["elsewhere"]
    assert admit(queue, 1) == ["large"]


def test_one_tenants_stuck_requests_do_not_hide_another_tenants() -> None:
    queue = core(tries_max=4)
    fill(queue, *(item(f"a{n}", tenant="a") for n in range(50)), item("b", tenant="b"))
    outcomes = queue.next(0.0, lambda w: Choice("e" if w.tenant == "b" else "gone", fits=w.tenant == "b"))
    assert [o.item.id for o in outcomes] == ["b"]


def test_the_scheduler_is_asked_a_bounded_number_of_times_in_vain() -> None:
    queue = core(tries_max=4)
    fill(queue, *(item(tenant=f"t{n}") for n in range(50)))
    asked: list[str] = []

    def choose(waiting: Waiting) -> Choice:
        asked.append(waiting.id)
        return Choice(f"e-{waiting.id}", fits=False)

    assert queue.next(0.0, choose) == []
    assert len(asked) == 4


def test_each_admission_is_committed_before_the_next_is_decided() -> None:
    queue = core()
    load: list[Any] = []
    fill(queue, *(item(str(n)) for n in range(9)))
    queue.next(0.0, lambda _: Choice("e", fits=len(load) < 3), commit=load.append)
    assert len(load) == 3


def test_service_by_another_replica_counts() -> None:
    queue = core(quantum_requests=0.0)
    fill(queue, *(item(f"a{n}", tenant="a") for n in range(9)), *(item(f"b{n}", tenant="b") for n in range(9)))
    queue.served_elsewhere("a", 0, 5 * 120.0)
    assert admit(queue, 6) == ["b0", "b1", "b2", "b3", "b4", "a0"]


def test_tenants_remembered_are_bounded() -> None:
    queue = core(tenants_max=10)
    for n in range(100):
        queue.enter(item(f"{n}", tenant=f"t{n}"), 0.0, fits)
        queue.settle(f"{n}", None, 0.0)
    queue.check()
    assert sum(len(band.flows) for band in queue._bands.values()) == 10


def test_the_heap_of_timeouts_does_not_grow_with_those_who_left() -> None:
    queue = core(queue_max=16)
    for n in range(1000):
        fill(queue, item(f"{n}"))
        queue.withdraw(f"{n}")
    assert len(queue._due) <= 64


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: AdmissionSettings(queue_max=0), "admission.queue_max is 0; allowed: 1 or more"),
        (lambda: AdmissionSettings(timeout_s=0), "admission.timeout_s is 0; allowed: above 0"),
        (lambda: AdmissionSettings(quantum_requests=-1), "admission.quantum_requests is -1"),
        (lambda: Objective(ttft_s=-1), r"admission.objectives\[\].ttft_s is -1"),
        (lambda: BoostSettings(sessions_max=0), "admission.boost.sessions_max is 0"),
    ],
)
def test_bad_settings_are_refused_with_what_is_allowed(make: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()
