"""The mailboxes alone: no clock, no tasks."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hekla.platform.api.meta import Ref
from hekla.platform.control.mailboxes import BACKOFF_MAX_S, Cause, Failed, Mailboxes, Outcome, Refused, Succeeded

A, B = Ref("Model", "default", "a"), Ref("Model", "default", "b")


def boxes(chance: float = 0.0) -> Mailboxes:
    return Mailboxes(lambda: chance)


def run(mail: Mailboxes, key: Ref, outcome: Outcome, now_s: float = 0.0) -> None:
    mail.wake(key, Cause.CHANGED)
    assert mail.take() == key
    mail.done(key, outcome, now_s)


def test_keys_are_taken_in_order_of_arrival_and_each_once() -> None:
    mail = boxes()
    for key in (B, A, B):
        mail.wake(key, Cause.RELATED)
    assert [mail.take(), mail.take(), mail.take()] == [B, A, None]


def test_a_running_key_is_not_taken_again_until_it_is_done() -> None:
    mail = boxes()
    mail.wake(A, Cause.CHANGED)
    mail.take()
    for _ in range(3):
        mail.wake(A, Cause.CHANGED)
    assert mail.take() is None
    mail.done(A, Succeeded(), 0)
    assert [mail.take(), mail.take()] == [A, None]


def test_a_key_that_succeeded_is_at_rest() -> None:
    mail = boxes()
    run(mail, A, Succeeded())
    assert mail.is_idle
    assert mail.next_due_s() is None


@pytest.mark.parametrize("chance, factor", [(0.0, 1.0), (0.5, 0.75)])
def test_backoff_doubles_to_its_most_less_the_jitter(chance: float, factor: float) -> None:
    mail = boxes(chance)
    waits = []
    for _ in range(12):
        run(mail, A, Failed(), now_s=100.0)
        waits.append((mail.next_due_s() or 0) - 100.0)
    whole = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0]
    assert waits == pytest.approx([wait * factor for wait in whole])


def test_a_key_that_failed_for_months_waits_the_most_and_no_longer() -> None:
    mail = boxes()
    for _ in range(5000):
        run(mail, A, Failed())
    assert mail.next_due_s() == BACKOFF_MAX_S


def test_success_forgets_the_failures() -> None:
    mail = boxes()
    for outcome in (Failed(), Failed(), Succeeded(), Failed()):
        run(mail, A, outcome)
    assert mail.next_due_s() == 0.1


def test_a_failure_that_names_its_delay_gets_it_but_never_none() -> None:
    mail = boxes()
    run(mail, A, Failed(delay_s=7))
    assert mail.next_due_s() == 7
    run(mail, A, Failed(delay_s=0))
    assert mail.next_due_s() == 0.1


def test_a_failing_key_is_ready_when_its_time_has_come_and_not_before() -> None:
    mail = boxes()
    run(mail, A, Failed(), now_s=1)
    mail.wake_due(1.0999)
    assert mail.take() is None
    mail.wake_due(1.1)
    assert mail.take() == A


def test_its_own_status_does_not_cut_a_failing_keys_backoff_short_but_news_does() -> None:
    mail = boxes()
    run(mail, A, Failed())
    mail.wake(A, Cause.OBSERVED)
    assert mail.take() is None
    mail.wake(A, Cause.RELATED)
    assert mail.take() == A
    mail.done(A, Succeeded(), 0)
    assert mail.next_due_s() is None


def test_a_status_write_of_its_own_while_it_runs_does_not_make_a_failing_key_spin() -> None:
    mail = boxes()
    mail.wake(A, Cause.CHANGED)
    mail.take()
    mail.wake(A, Cause.OBSERVED)
    mail.done(A, Failed(), 0)
    assert mail.take() is None
    assert mail.next_due_s() == 0.1


def test_a_refused_key_waits_until_its_own_object_changes() -> None:
    mail = boxes()
    run(mail, A, Succeeded(again_s=5))
    run(mail, A, Refused())
    mail.wake(A, Cause.OBSERVED)
    mail.wake(A, Cause.RELATED)
    mail.wake_due(1000)
    assert mail.take() is None
    assert mail.parked == 1
    mail.wake(A, Cause.CHANGED)
    assert mail.take() == A


def test_a_change_that_came_while_the_refused_reconcile_ran_is_not_lost() -> None:
    mail = boxes()
    mail.wake(A, Cause.CHANGED)
    mail.take()
    mail.wake(A, Cause.CHANGED)
    mail.wake(A, Cause.OBSERVED)
    mail.done(A, Refused(), 0)
    assert mail.take() == A


def test_again_comes_after_its_time_whatever_happens_before() -> None:
    mail = boxes()
    run(mail, A, Succeeded(again_s=10), now_s=0)
    run(mail, A, Succeeded(), now_s=5)
    assert mail.next_due_s() == 10
    mail.wake_due(10)
    assert mail.take() == A


def test_of_two_agains_the_earlier_counts_and_only_one_is_kept() -> None:
    mail = boxes()
    run(mail, A, Succeeded(again_s=10), now_s=0)
    run(mail, A, Succeeded(again_s=10), now_s=5)
    assert mail.next_due_s() == 10
    mail.wake_due(10)
    mail.take()
    mail.done(A, Succeeded(again_s=10), 10)
    assert mail.next_due_s() == 20


def test_times_that_come_together_wake_in_their_order() -> None:
    mail = boxes()
    run(mail, B, Succeeded(again_s=1))
    run(mail, A, Succeeded(again_s=2))
    mail.wake_due(3)
    assert [mail.take(), mail.take()] == [B, A]


class AnyStory(RuleBasedStateMachine):
    """Wakes, takes, outcomes and time in any order: the invariants hold and no change is ever forgotten."""

    keys = st.sampled_from([Ref("Model", "default", name) for name in "abc"])

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.mail = Mailboxes(lambda: 0.25)
        self.running: list[Ref] = []
        self.unseen: set[Ref] = set()

    @rule(key=keys, cause=st.sampled_from(Cause))
    def wake(self, key: Ref, cause: Cause) -> None:
        self.mail.wake(key, cause)
        if cause is Cause.CHANGED:
            self.unseen.add(key)

    @rule()
    def take(self) -> None:
        key = self.mail.take()
        if key is not None:
            assert key not in self.running
            self.running.append(key)
            self.unseen.discard(key)

    @precondition(lambda self: self.running)
    @rule(
        which=st.integers(0, 2),
        outcome=st.sampled_from([Succeeded(), Succeeded(3.0), Failed(), Failed(2.0), Refused()]),
    )
    def done(self, which: int, outcome: Outcome) -> None:
        self.mail.done(self.running.pop(which % len(self.running)), outcome, self.now_s)

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.mail.wake_due(self.now_s)
        due = self.mail.next_due_s()
        assert due is None or due > self.now_s

    @invariant()
    def holds(self) -> None:
        self.mail.check()
        assert self.mail.running == len(self.running)

    def teardown(self) -> None:
        while self.running:
            self.mail.done(self.running.pop(), Succeeded(), self.now_s)
        while (key := self.mail.take()) is not None:
            self.unseen.discard(key)
            self.mail.done(key, Succeeded(), self.now_s)
        assert not self.unseen, "a change was never reconciled"


TestAnyStory = AnyStory.TestCase
