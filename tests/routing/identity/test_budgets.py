from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hekla.platform.base.clock import VirtualClock, parse_rfc3339
from hekla.platform.base.errors import Invalid
from hekla.routing.identity.budgets import Ledger, cost_nanos
from hekla.routing.identity.directory_building import build_directory
from hekla.routing.identity.interface import Budget, Caller, Subject, Window
from hekla.routing.identity.settings import IdentitySettings, Price
from hekla.routing.identity.usage_reports import FakeUsageSink, UsageReporter
from hekla.routing.identity.windows import window_at
from hekla.routing.usage import Usage

NOW_S = parse_rfc3339("2027-01-31T23:30:00Z")
TEAM = Subject("Tenant", "default", "t")
Make = Callable[..., Any]


def caller(*budgets: Budget) -> Caller:
    return Caller(tenant="t", budgets=budgets)


def daily(tokens: int | None = 100, nanos: int | None = None, models: tuple[str, ...] = ("*",)) -> Budget:
    return Budget(TEAM, "day", models, tokens, nanos)


def used(prompt: int, completion: int = 0, cached: int = 0) -> Usage:
    return Usage(prompt, completion, cached)


@pytest.mark.parametrize(
    ("window", "begin", "end"),
    [
        ("hour", "2027-01-31T23:00:00Z", "2027-02-01T00:00:00Z"),
        ("day", "2027-01-31T00:00:00Z", "2027-02-01T00:00:00Z"),
        ("week", "2027-01-25T00:00:00Z", "2027-02-01T00:00:00Z"),
        ("month", "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"),
    ],
)
def test_windows_are_the_calendars_in_utc(window: Window, begin: str, end: str) -> None:
    assert window_at(window, NOW_S) == (parse_rfc3339(begin), parse_rfc3339(end))


def test_the_last_month_of_a_year_ends_with_it() -> None:
    assert window_at("month", parse_rfc3339("2027-12-31T23:59:59Z"))[1] == parse_rfc3339("2028-01-01T00:00:00Z")


def test_a_budget_is_spent_when_the_count_reaches_it_and_begins_anew_with_its_window() -> None:
    ledger, who = Ledger("a"), caller(daily(tokens=100))
    ledger.charge(who, "m", used(60, 39), None, NOW_S)
    assert ledger.exceeded(who, "m", NOW_S) is None
    ledger.charge(who, "m", used(1), None, NOW_S)
    over = ledger.exceeded(who, "m", NOW_S)
    assert over is not None
    assert over == (daily(tokens=100), parse_rfc3339("2027-02-01T00:00:00Z"))
    assert ledger.exceeded(who, "m", over[1]) is None


def test_a_budget_of_nothing_lets_nothing_through() -> None:
    assert Ledger("a").exceeded(caller(daily(tokens=0)), "m", NOW_S) is not None


def test_a_budget_counts_the_models_it_names_only() -> None:
    ledger, who = Ledger("a"), caller(daily(tokens=10, models=("big-*",)))
    ledger.charge(who, "small", used(1000), None, NOW_S)
    assert ledger.exceeded(who, "big-1", NOW_S) is None
    ledger.charge(who, "big-1", used(10), None, NOW_S)
    assert ledger.exceeded(who, "big-2", NOW_S) is not None
    assert ledger.exceeded(who, "small", NOW_S) is None


@pytest.mark.parametrize(
    ("price", "usage", "nanos"),
    [
        (Price("*", input=2, cached=0.5, output=10), used(7, 3, 2), 41_000),
        (Price("*", input=2, output=10), used(7, 3, 2), 44_000),
        (Price("*", input=2, cached=0), used(7, 3, 2), 10_000),
        (Price("*", input=2, cached=0), used(7, 0, 99), 0),
        (None, used(7, 3, 2), 0),
    ],
)
def test_cached_tokens_cost_their_own_price(price: Price | None, usage: Usage, nanos: int) -> None:
    assert cost_nanos(usage, price) == nanos


def test_money_is_exact_however_small_its_parts() -> None:
    ledger, who, price = Ledger("a"), caller(daily(tokens=None, nanos=1_000_000)), Price("*", input=0.1)
    for _ in range(10_000):
        ledger.charge(who, "m", used(1), price, NOW_S)
    assert ledger.exceeded(who, "m", NOW_S) is not None
    assert ledger.spent(daily(), window_at("day", NOW_S)[0]).nanos == 1_000_000


def test_a_raised_limit_holds_at_once_and_forgets_nothing() -> None:
    ledger = Ledger("a")
    ledger.charge(caller(daily(tokens=10)), "m", used(10), None, NOW_S)
    assert ledger.exceeded(caller(daily(tokens=10)), "m", NOW_S) is not None
    assert ledger.exceeded(caller(daily(tokens=11)), "m", NOW_S) is None
    assert ledger.exceeded(caller(daily(tokens=9)), "m", NOW_S) is not None


async def shared(sink: FakeUsageSink, *ledgers: Ledger, now_s: float = NOW_S) -> None:
    """Each tells, then each learns."""
    for ledger in ledgers:
        await UsageReporter(ledger, sink, VirtualClock(), 1).report()
    for ledger in ledgers:
        ledger.learn({TEAM: sink.usage.get(TEAM, {})}, now_s)


async def test_replicas_add_up_what_they_tell_however_often_they_tell_it() -> None:
    sink, a, b, who = FakeUsageSink(), Ledger("a"), Ledger("b"), caller(daily(tokens=100))
    a.charge(who, "m", used(50), None, NOW_S)
    b.charge(who, "m", used(50), None, NOW_S)
    assert a.exceeded(who, "m", NOW_S) is None
    for _ in range(3):
        await shared(sink, a, b)
    begin_s = window_at("day", NOW_S)[0]
    assert a.spent(daily(), begin_s).tokens == b.spent(daily(), begin_s).tokens == 100
    assert a.exceeded(who, "m", NOW_S) is not None


async def test_what_a_replica_that_is_gone_had_spent_stays_spent() -> None:
    sink, old, who = FakeUsageSink(), Ledger("old"), caller(daily(tokens=10))
    old.charge(who, "m", used(10), None, NOW_S)
    await shared(sink, old)
    new = Ledger("new")
    new.learn({TEAM: sink.usage[TEAM]}, NOW_S)
    assert new.exceeded(who, "m", NOW_S) is not None


async def test_while_the_platform_is_away_a_replica_counts_its_own_and_tells_later() -> None:
    sink, ledger, who = FakeUsageSink(), Ledger("a"), caller(daily(tokens=10))
    sink.is_away = True
    ledger.charge(who, "m", used(10), None, NOW_S)
    await UsageReporter(ledger, sink, VirtualClock(), 1).report()
    assert ledger.exceeded(who, "m", NOW_S) is not None
    assert not sink.usage
    sink.is_away = False
    await UsageReporter(ledger, sink, VirtualClock(), 1).report()
    assert sink.usage[TEAM]["a"]["day:*"]["tokens"] == 10


async def test_entries_of_windows_that_are_over_are_removed() -> None:
    sink, old, new, who = FakeUsageSink(), Ledger("old"), Ledger("new"), caller(daily())
    old.charge(who, "m", used(10), None, NOW_S)
    await shared(sink, old)
    tomorrow_s = NOW_S + 3600
    new.learn({TEAM: sink.usage[TEAM]}, tomorrow_s)
    new.charge(who, "m", used(1), None, tomorrow_s)
    await shared(sink, new, now_s=tomorrow_s)
    assert set(sink.usage[TEAM]) == {"new"}


async def test_a_replica_whose_clock_is_behind_removes_no_entry_of_the_next_window() -> None:
    sink, ahead, behind, who = FakeUsageSink(), Ledger("ahead"), Ledger("behind"), caller(daily())
    ahead.charge(who, "m", used(10), None, NOW_S + 1800)
    await shared(sink, ahead, now_s=NOW_S + 1800)
    behind.charge(who, "m", used(1), None, NOW_S + 1790)
    await shared(sink, behind, now_s=NOW_S + 1790)
    await shared(sink, behind, now_s=NOW_S + 1790)
    assert set(sink.usage[TEAM]) == {"ahead", "behind"}


async def test_an_entry_somebody_removed_is_told_again() -> None:
    sink, ledger, who = FakeUsageSink(), Ledger("a"), caller(daily())
    ledger.charge(who, "m", used(10), None, NOW_S)
    await shared(sink, ledger)
    sink.usage[TEAM].clear()
    await shared(sink, ledger)
    await shared(sink, ledger)
    assert sink.usage[TEAM]["a"]["day:*"]["tokens"] == 10


async def test_once_all_is_told_nothing_more_is_sent() -> None:
    sink, ledger, who = FakeUsageSink(), Ledger("a"), caller(daily())
    ledger.charge(who, "m", used(10), None, NOW_S)
    await shared(sink, ledger)
    assert not ledger.untold()


async def test_a_subject_that_is_gone_is_forgotten() -> None:
    sink, ledger = FakeUsageSink(), Ledger("a")
    sink.gone.add(TEAM)
    ledger.charge(caller(daily()), "m", used(10), None, NOW_S)
    await UsageReporter(ledger, sink, VirtualClock(), 1).report()
    ledger.learn({}, NOW_S)
    assert not ledger.untold()
    assert ledger.exceeded(caller(daily(tokens=10)), "m", NOW_S) is None


@pytest.mark.parametrize("usage", [None, [], "x", {"b": None}, {"b": {"day:*": 5}}, {"b": {"day:*": {"from": "x"}}}])
def test_usage_that_cannot_be_read_counts_as_nothing(usage: Any) -> None:
    ledger = Ledger("a")
    ledger.learn({TEAM: usage}, NOW_S)
    assert ledger.exceeded(caller(daily(tokens=1)), "m", NOW_S) is None


def test_the_routes_price_goes_before_the_settings_and_a_broken_one_is_named() -> None:
    def route(name: str, price: str) -> Any:
        meta = {"name": name, "annotations": {"hekla.io/price": price}}
        return {"kind": "ModelRoute", "metadata": meta, "spec": {"modelName": name, "loraAdapters": [f"{name}-lora"]}}

    directory = build_directory(
        [], [], [route("m", '{"input": 3}'), route("bad", '{"inputs": 3}'), route("worse", "3")]
    )
    others = (Price("m*", input=1), Price("*", input=0.5))
    prices = [directory.price(name, others) for name in ("m", "m-lora", "mx", "bad")]
    assert [price.input for price in prices if price] == [3, 3, 1, 0.5]
    assert "allowed: input, cached, output" in directory.problems["ModelRoute default/bad"]
    assert "ModelRoute default/worse" in directory.problems


@pytest.mark.parametrize(
    ("budgets", "problem"),
    [
        ([{"window": "day"}], "limits nothing"),
        ([{"window": "day", "tokens": 1}, {"window": "day", "money": 1}], "of another budget"),
        ([{"window": "year", "tokens": 1}], "spec.budgets"),
        ([{"window": "day", "tokens": -1}], "spec.budgets"),
        ([{"window": "day", "money": float("nan")}], "spec.budgets"),
    ],
)
def test_a_budget_that_means_nothing_is_refused_when_it_is_applied(tenant: Make, budgets: Any, problem: str) -> None:
    with pytest.raises(Invalid, match=problem):
        tenant("t", budgets=budgets)


def test_settings_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"identity\.mode is 'on'; allowed: off, optional, required"):
        IdentitySettings(mode="on")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"identity\.prices\[m\]\.input"):
        Price("m", input=-1)
