"""What a queue refuses and when: its bounds, timeouts, sessions and slots."""

from __future__ import annotations

import itertools
from typing import Any

from hekla.routing.admission.core import AdmissionCore
from hekla.routing.admission.interface import Admitted, Choice, Expired, Outcome, Reason, Rejected, Spent, Waiting
from hekla.routing.admission.settings import AdmissionSettings, BoostSettings

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


def test_no_ready_engine_is_waited_for() -> None:
    queue = core()
    assert queue.enter(item("a"), 0.0, nothing_ready) is None
    assert queue.next(1.0, nothing_ready) == []
    assert admit(queue, 1) == ["a"]


def test_a_full_queue_rejects() -> None:
    queue = core(queue_max=3, tenant_queue_max=9)
    fill(queue, item(), item(), item())
    rejected = queue.offer(item(), 0.0)
    assert isinstance(rejected, Rejected) and rejected.reason == Reason.QUEUE_FULL and rejected.retry_after_s >= 1
    assert len(queue) == 3


def test_a_tenant_may_fill_only_its_own_part() -> None:
    queue = core(tenant_queue_max=2)
    fill(queue, item(tenant="a"), item(tenant="a"), item(tenant="b"))
    rejected = queue.offer(item(tenant="a"), 0.0)
    assert rejected is not None and rejected.reason == Reason.TENANT_QUEUE_FULL
    assert queue.offer(item(tenant="b"), 0.0) is None


def test_bytes_are_bounded_too() -> None:
    queue = core(queue_bytes_max=100)
    fill(queue, item("a", size_bytes=60))
    rejected = queue.offer(item(size_bytes=41), 0.0)
    assert rejected is not None and rejected.reason == Reason.QUEUE_FULL
    assert queue.withdraw("a") and queue.offer(item(size_bytes=100), 0.0) is None
    queue.check()


def test_a_tenant_with_fewer_waiting_takes_the_place_of_one_with_more() -> None:
    queue = core(queue_max=4)
    fill(queue, *(item(f"a{n}", tenant="a") for n in range(4)))
    assert queue.offer(item("b", tenant="b"), 0.0) is None
    assert queue.next_wake_s == 0.0
    assert expired(queue.next(0.0, full)) == {"a3": Reason.DISPLACED}
    assert queue.offer(item("b2", tenant="b"), 0.0) is None  # three against one: the second makes two against two
    assert queue.offer(item("b3", tenant="b"), 0.0) is not None
    queue.check()


def test_a_higher_class_takes_the_place_of_a_lower_one() -> None:
    queue = core(queue_max=2)
    fill(queue, item("l1", priority=0), item("l2", priority=0))
    assert queue.offer(item("h", priority=1), 0.0) is None
    assert expired(queue.next(0.0, full)) == {"l2": Reason.DISPLACED}
    assert queue.offer(item("low", priority=-1), 0.0) is not None


def test_waiting_ends_with_the_timeout_row_L11() -> None:
    queue = core(timeout_s=60.0)
    fill(queue, item("a"), item("b", arrived_s=1.0))
    assert queue.next_wake_s == 60.0
    assert queue.next(59.9, full) == []
    assert expired(queue.next(60.0, full)) == {"a": Reason.TIMEOUT}
    assert queue.next_wake_s == 61.0


def test_waiting_ends_with_the_deadline() -> None:
    queue = core(timeout_s=60.0)
    fill(queue, item("a", deadline_s=5.0))
    assert expired(queue.next(5.0, fits)) == {"a": Reason.DEADLINE}


def test_a_client_that_left_is_never_admitted_row_L11() -> None:
    queue = core()
    fill(queue, item("a"), item("b"))
    assert queue.withdraw("a")
    assert not queue.withdraw("a")
    assert admit(queue, 9) == ["b"]


def test_retry_after_is_the_backlog_over_the_rate_of_late() -> None:
    queue = core(retry_after_max_s=600, queue_max=100, tenant_queue_max=100)
    fill(queue, *(item() for _ in range(100)))
    now_s = 0.0
    for _ in range(20):
        now_s += 1.0
        admit(queue, 2, now_s)  # two requests a second
        fill(queue, item(arrived_s=now_s), item(arrived_s=now_s), now_s=now_s)
    rejected = queue.offer(item(), now_s)
    assert rejected is not None
    assert 45 <= rejected.retry_after_s <= 55  # 100 waiting


def test_retry_after_is_shorter_for_a_tenant_with_little_waiting() -> None:
    queue = core(retry_after_max_s=600, queue_max=300, tenant_queue_max=100)
    fill(queue, *(item(tenant="a") for _ in range(100)), *(item(tenant="b", uncached_tokens=5) for _ in range(100)))
    for now_s in range(1, 21):
        admit(queue, 2, float(now_s))
    while (greedy := queue.offer(item(tenant="a"), 20.0)) is None:
        pass
    while (modest := queue.offer(item(tenant="b", uncached_tokens=5), 20.0)) is None:
        pass
    assert modest.retry_after_s < greedy.retry_after_s / 2


def test_retry_after_is_bounded() -> None:
    queue = core(retry_after_max_s=7, queue_max=1)
    fill(queue, item(uncached_tokens=10**9))
    queue.next(100.0, full)
    fill(queue, item("x", arrived_s=100.0), now_s=100.0)
    rejected = queue.offer(item(tenant="", arrived_s=100.0), 100.0)
    assert rejected is not None and 1 <= rejected.retry_after_s <= 7


def test_a_follow_up_of_a_completed_session_goes_first_row_L14() -> None:
    """L14: s1 was completed; of s2, s3 and s1's follow-up the last goes first."""
    queue = core()
    queue.enter(item("first", session="s1"), 0.0, fits)
    queue.settle("first", Spent(10, 10), 1.0)
    fill(queue, *(item(f"{s}", session=s) for s in ("s2", "s3", "s1")))
    assert admit(queue, 9) == ["s1", "s2", "s3"]


def test_of_two_follow_ups_the_later_completed_session_goes_first() -> None:
    queue = core()
    for session in ("s1", "s2"):
        queue.enter(item(f"first-{session}", session=session), 0.0, fits)
        queue.settle(f"first-{session}", None, 1.0)
    fill(queue, item("new", session="s3"), item("s1", session="s1"), item("s2", session="s2"))
    assert admit(queue, 9) == ["s2", "s1", "new"]


def test_a_session_boost_stays_within_its_tenants_fair_share() -> None:
    """The peer's boost and fairness exclude each other; here a tenant with many sessions can't starve another."""
    queue = core(quantum_requests=1.0)
    queue.enter(item("first", session="s1", tenant="a"), 0.0, fits)
    queue.settle("first", None, 0.0)
    fill(queue, *(item(f"a{n}", session="s1", tenant="a") for n in range(20)))
    fill(queue, *(item(f"b{n}", tenant="b") for n in range(20)))
    gone = admit(queue, 20)
    assert gone[0] == "a0"
    assert 9 <= sum(name.startswith("b") for name in gone) <= 11


def test_sessions_remembered_are_bounded() -> None:
    queue = core(boost=BoostSettings(sessions_max=2))
    for n in range(3):
        queue.enter(item(f"q{n}", session=f"s{n}"), 0.0, fits)
        queue.settle(f"q{n}", None, 0.0)
    fill(queue, item("none"), item("forgotten", session="s0"), item("kept", session="s1"))
    assert admit(queue, 9) == ["kept", "none", "forgotten"]


def test_requests_per_engine_are_limited_row_L15() -> None:
    """L15: two engines, 16 for each: the 33rd waits; it is told 429, not the peer's 504, when its time is over."""
    queue = AdmissionCore(AdmissionSettings(per_engine_max=16, timeout_s=30.0), engines=2)
    entered = [queue.enter(item(f"{n}"), 0.0, fits) for n in range(33)]
    assert sum(isinstance(outcome, Admitted) for outcome in entered) == 32
    assert len(queue) == 1
    assert expired(queue.next(30.0, fits)) == {"32": Reason.TIMEOUT}


def test_an_ended_request_frees_its_slot() -> None:
    queue = core(concurrent_max=1)
    queue.enter(item("a"), 0.0, fits)
    assert queue.enter(item("b"), 0.0, fits) is None
    assert queue.next(1.0, fits) == []
    queue.settle("a", None, 2.0)
    assert [o.item.id for o in queue.next(2.0, fits)] == ["b"]


def test_a_slot_is_kept_for_a_sessions_follow_up() -> None:
    queue = core(concurrent_max=1, boost=BoostSettings(grace_s=2.0))
    queue.enter(item("a", session="s"), 0.0, fits)
    fill(queue, item("other"))
    queue.settle("a", None, 10.0)
    assert queue.next(10.0, fits) == [] and queue.next_wake_s == 12.0
    fill(queue, item("follow-up", session="s", arrived_s=11.0), now_s=11.0)
    assert [o.item.id for o in queue.next(11.0, fits)] == ["follow-up"]
    queue.settle("follow-up", Spent(0, 0), 11.5)
    assert [o.item.id for o in queue.next(11.5, fits)] == ["other"]
