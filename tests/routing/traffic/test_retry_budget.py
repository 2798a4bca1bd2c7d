"""The retry budget, the wait between tries, and an engine's own `Retry-After`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hekla.routing.traffic.retries import RetryBudget, RetryBudgets, backoff_s, retry_after_s
from hekla.routing.traffic.settings import RetryBudgetSettings

SETTINGS = RetryBudgetSettings(ratio=0.2, floor_per_s=2, burst=10)


def drained(settings: RetryBudgetSettings = SETTINGS) -> RetryBudget:
    budget = RetryBudget(settings, 0.0)
    while budget.take(0.0):
        pass
    return budget


def test_a_fresh_budget_allows_its_burst_and_no_more() -> None:
    budget = RetryBudget(SETTINGS, 0.0)
    assert [budget.take(0.0) for _ in range(12)] == [True] * 10 + [False] * 2


def test_five_requests_earn_one_further_try() -> None:
    budget = drained()
    for _ in range(5):
        budget.request()
    assert budget.take(0.0)
    assert not budget.take(0.0)


def test_the_floor_earns_tries_without_any_request() -> None:
    budget = drained()
    assert not budget.take(0.4)
    assert budget.take(0.5)
    assert budget.take(1.0)
    assert not budget.take(1.0)


def test_what_is_saved_up_never_exceeds_the_burst() -> None:
    budget = drained()
    for _ in range(10_000):
        budget.request()
    assert sum(budget.take(9999.0) for _ in range(100)) == 10


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 0.5)), max_size=300))
def test_tries_stay_below_burst_plus_share_plus_floor(steps: list[tuple[bool, float]]) -> None:
    budget, now_s, requests, tries = RetryBudget(SETTINGS, 0.0), 0.0, 0, 0
    for is_request, passed_s in steps:
        now_s += passed_s
        if is_request:
            requests += 1
            budget.request()
        tries += budget.take(now_s)
        assert tries <= SETTINGS.burst + SETTINGS.ratio * requests + SETTINGS.floor_per_s * now_s + 1e-6


def test_each_model_server_has_its_own_budget_and_loses_it_with_its_manifest() -> None:
    budgets = RetryBudgets(SETTINGS)
    first = budgets.of("default/a", 0.0)
    assert budgets.of("default/b", 0.0) is not first
    assert budgets.of("default/a", 5.0) is first
    budgets.forget({"default/b"})
    assert budgets.of("default/a", 5.0) is not first


def test_the_wait_doubles_and_is_never_shorter_than_the_interval() -> None:
    assert [backoff_s(0.1, tries, 0.0, 5.0) for tries in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert backoff_s(0.1, 1, 0.999, 5.0) == pytest.approx(0.15, rel=0.01)
    assert backoff_s(0.1, 1000, 0.0, 5.0) == 5.0
    assert backoff_s(30.0, 1, 0.0, 5.0) == 30.0, "a manifest's interval above the ingress's longest is obeyed"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, 0), ("7", 7), (" 7 ", 7), ("9999", 30), ("-1", 0), ("soon", 0), ("١", 0), ("9" * 40, 0),
     ("Wed, 21 Oct 2026 07:28:00 GMT", 0)],
)  # fmt: skip
def test_a_retry_after_is_seconds_within_the_bound(value: str | None, seconds: float) -> None:
    assert retry_after_s(value, 30.0) == seconds
