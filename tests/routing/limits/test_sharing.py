"""Replicas of the ingress that share their limits, in virtual time, over a network that a test may break."""

from __future__ import annotations

import random

from hekla.routing.limits.limiter import Exceeded, Limiter
from hekla.routing.limits.rules import Asking
from hekla.routing.limits.settings import LimitRule, RateLimitSettings
from hekla.routing.limits.sharing import Entry, Ledger, budget_id


class Replica:
    def __init__(self, name: str, rule: LimitRule, replicas: int) -> None:
        self.name, self.now_s = name, 0.0
        settings = RateLimitSettings((rule,))
        self.ledger = Ledger(
            silence_s=settings.silence_s,
            apply=lambda key, amount, now_s: self.limiter.taken_elsewhere(key, amount, now_s),
            adopt=lambda key, used, now_s: self.limiter.at_least_used(key, used, now_s),
            used=lambda key, now_s: self.limiter.used(key, now_s),
        )
        self.ledger.replicas = replicas
        self.limiter = Limiter(
            settings, share=lambda: self.ledger.share(self.now_s), used_elsewhere=self.ledger.used_elsewhere,
            on_taken=self.ledger.taken,
        )  # fmt: skip

    def ask(self, now_s: float, tokens: int = 10) -> bool:
        self.now_s = now_s
        try:
            self.limiter.take(Asking("m", input_tokens=tokens), now_s)
        except Exceeded:
            return False
        return True


PER_MINUTE = LimitRule("r", input_tokens=300, per=())


def fleet(count: int, rule: LimitRule = PER_MINUTE) -> list[Replica]:
    return [Replica(f"r{i}", rule, count) for i in range(count)]


def exchange(replicas: list[Replica], now_s: float, *, repeat: bool = False) -> None:
    for replica in replicas:
        news = replica.ledger.repeat(now_s, 1000) if repeat else replica.ledger.news(now_s, 1000)
        for other in replicas:
            if other is not replica:
                other.ledger.hear(replica.name, news, now_s)


def test_three_replicas_keep_one_limit_together_row_L6() -> None:
    """300 a minute, 30 a request, round robin over three replicas: ten go, not thirty."""
    replicas, granted = fleet(3), 0
    exchange(replicas, 0.0)
    for n in range(20):
        granted += replicas[n % 3].ask(0.0, 30)
        exchange(replicas, 0.0)
    assert granted == 10


def test_without_a_word_from_the_others_a_replica_uses_its_own_part_row_L8() -> None:
    """The peer lets everything through when its Redis can't be reached; here a limit is still kept, and nothing stops."""
    replicas = fleet(3)
    granted = sum(replicas[n % 3].ask(0.0, 10) for n in range(90))
    assert granted == 30  # ten each: their thirds


def test_a_replica_alone_has_the_whole_limit() -> None:
    (replica,) = fleet(1)
    assert sum(replica.ask(0.0) for _ in range(90)) == 30


def test_two_that_hear_each_other_but_not_the_third_share_two_thirds() -> None:
    a, b, _ = fleet(3)
    exchange([a, b], 0.0)
    granted = 0
    for n in range(90):
        granted += (a, b)[n % 2].ask(0.0)
        exchange([a, b], 0.0)
    assert granted == 20


def test_silence_cuts_the_limit_and_a_word_restores_it() -> None:
    a, b = fleet(2)
    exchange([a, b], 0.0)
    assert a.ledger.share(3.0) == 1.0
    assert a.ledger.share(3.1) == 0.5
    exchange([a, b], 10.0)
    assert a.ledger.share(10.0) == 1.0


def test_news_that_is_lost_late_or_repeated_counts_once() -> None:
    a, b = fleet(2)
    exchange([a, b], 0.0)
    assert b.ask(0.0)
    exchange([a, b], 0.0)
    chance = random.Random(7)
    sent = []
    for _ in range(10):
        assert a.ask(0.0)
        sent.extend(a.ledger.news(0.0, 10))
    for entry in sent:
        for _ in range(chance.randrange(3)):  # lost, once or twice
            b.ledger.hear("r0", [entry], 0.0)
    b.ledger.hear("r0", a.ledger.repeat(0.0, 10), 0.0)
    key = "r\x1einput_tokens\x1e"
    assert b.limiter.used(key, 0.0) == a.limiter.used(key, 0.0) == 110


def test_a_replica_that_comes_later_learns_what_is_used() -> None:
    a, b = fleet(2)
    for ledger in (a.ledger, b.ledger):
        ledger.replicas = 1
    for _ in range(20):
        assert a.ask(0.0)
    exchange([a, b], 30.0, repeat=True)
    # 200 were used, 150 have flowed back in 30 s, 10 s later 50 more.
    assert sum(b.ask(40.0) for _ in range(60)) == 30


def test_what_was_heard_before_a_budget_was_asked_for_flows_back_meanwhile() -> None:
    (a,) = fleet(1)
    a.ledger.hear("x", [Entry(budget_id("r\x1einput_tokens\x1e"), 10_000.0, 300.0)], 0.0)
    assert not a.ask(1.0)
    assert a.ask(2.0)


def test_giving_back_is_heard_too() -> None:
    a, b = fleet(2)
    exchange([a, b], 0.0)
    assert b.ask(0.0)
    exchange([a, b], 0.0)
    grant = a.limiter.take(Asking("m", input_tokens=200), 0.0)
    exchange([a, b], 0.0)
    a.limiter.refund(grant, 0.0)
    exchange([a, b], 0.0)
    assert b.limiter.used("r\x1einput_tokens\x1e", 0.0) == 10


def test_overdraft_within_one_round_of_news_is_owed() -> None:
    """Ten replicas take all of it at once; over ten minutes no more goes than the limit and that first overdraft."""
    replicas, granted = fleet(10), 0
    exchange(replicas, 0.0)
    for second in range(601):
        for replica in replicas:
            for _ in range(4):
                granted += 10 * replica.ask(float(second))
        exchange(replicas, float(second))
    allowed = 300 + 600 * 5
    assert allowed - 10 * 10 <= granted <= allowed + 10 * 10 * 4


def test_everything_is_told_again_in_turn() -> None:
    (a,) = fleet(1, LimitRule("r", requests=5, per=("user",)))
    for n in range(7):
        a.limiter.take(Asking("m", user=f"u{n}"), 0.0)
    told = [entry.budget for _ in range(4) for entry in a.ledger.repeat(0.0, 2)]
    assert len(set(told)) == 7


def test_replicas_that_begin_at_the_same_moment_add_up() -> None:
    replicas = fleet(3)
    exchange(replicas, 0.0)
    assert all(replica.ask(0.0) for replica in replicas)
    exchange(replicas, 0.0)
    assert [replica.limiter.used("r\x1einput_tokens\x1e", 0.0) for replica in replicas] == [30, 30, 30]


def test_a_replica_back_from_a_partition_is_counted_once() -> None:
    a, b = fleet(2, LimitRule("r", input_tokens=3000, unit="month", per=()))
    for replica in (a, b):
        assert replica.ask(0.0)
    exchange([a, b], 0.0)
    for now_s in (0.0, 1000.0, 2000.0):
        assert a.ask(now_s)
    b.ledger.repeat(2000.0, 10)
    exchange([a, b], 2000.0)
    used = [replica.limiter.used("r\x1einput_tokens\x1e", 2000.0) for replica in (a, b)]
    assert all(45 < amount <= 50 for amount in used)
