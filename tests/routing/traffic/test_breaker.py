"""One engine's breaker: what opens it, for how long, and what closes it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hekla.routing.traffic.breaker import Breaker, State
from hekla.routing.traffic.latency import Latency, is_outlier
from hekla.routing.traffic.settings import EjectionSettings, SlowStartSettings
from hekla.routing.traffic.slow_start import share

SETTINGS = EjectionSettings(
    consecutive_failures=3, failure_percent=50, requests_min=10, window_s=10, base_s=10, max_s=60, probes_needed=2
)


def failing(breaker: Breaker, now_s: float, times: int = 3) -> None:
    for _ in range(times):
        breaker.failed(now_s, SETTINGS)


def test_failures_in_a_row_open_it() -> None:
    breaker = Breaker()
    assert not breaker.failed(0.0, SETTINGS)
    assert not breaker.failed(0.0, SETTINGS)
    assert breaker.failed(0.0, SETTINGS)
    assert (breaker.state, breaker.until_s) == (State.OPEN, 10.0)


def test_a_success_between_failures_starts_the_count_anew() -> None:
    breaker, settings = Breaker(), dataclasses.replace(SETTINGS, failure_percent=0)
    for _ in range(40):
        breaker.failed(0.0, settings)
        breaker.failed(0.0, settings)
        breaker.succeeded(0.0, settings)
    assert breaker.state is State.CLOSED


def test_a_share_of_failures_within_the_window_opens_it() -> None:
    breaker = Breaker()
    for step in range(5):
        breaker.succeeded(step * 1.0, SETTINGS)
        assert breaker.state is State.CLOSED
        breaker.failed(step * 1.0, SETTINGS)
    assert breaker.state is State.OPEN


def test_failures_older_than_the_window_do_not_count() -> None:
    breaker = Breaker()
    for step in range(40):
        breaker.succeeded(step * 10.0, SETTINGS)
        breaker.failed(step * 10.0, SETTINGS)
    assert breaker.state is State.CLOSED, "never ten requests within ten seconds"


def test_after_its_time_it_probes_and_enough_successes_close_it() -> None:
    breaker = Breaker()
    failing(breaker, 0.0)
    states = []
    steps: list[Callable[[], None]] = [
        lambda: breaker.tick(9.9),
        lambda: breaker.tick(10.0),
        lambda: breaker.succeeded(10.1, SETTINGS),
        lambda: breaker.succeeded(10.2, SETTINGS),
    ]
    for step in steps:
        step()
        states.append(breaker.state)
    assert states == [State.OPEN, State.PROBING, State.PROBING, State.CLOSED]


def test_a_failed_probe_opens_it_for_twice_as_long_up_to_the_longest() -> None:
    breaker, now_s, lengths = Breaker(), 0.0, []
    failing(breaker, now_s)
    for _ in range(5):
        lengths.append(breaker.until_s - now_s)
        now_s = breaker.until_s
        breaker.tick(now_s)
        assert breaker.failed(now_s, SETTINGS)
    assert lengths == [10, 20, 40, 60, 60]


def test_health_is_forgiving() -> None:
    breaker = Breaker()
    failing(breaker, 0.0)
    breaker.tick(10.0)
    breaker.failed(10.0, SETTINGS)
    breaker.tick(30.0)
    for _ in range(2):
        breaker.succeeded(30.0, SETTINGS)
    assert breaker.ejections == 2
    failing(breaker, 30.0 + 2 * SETTINGS.max_s)
    assert breaker.until_s == 30.0 + 2 * SETTINGS.max_s + SETTINGS.base_s, "two ejections forgiven"


def test_late_failures_of_an_open_breaker_do_not_prolong_it() -> None:
    breaker = Breaker()
    failing(breaker, 0.0, 50)
    assert (breaker.until_s, breaker.ejections) == (10.0, 1)


@given(st.lists(st.tuples(st.sampled_from(["ok", "bad", "wait"]), st.floats(0, 30)), max_size=200))
def test_no_order_of_events_leads_to_an_illegal_step_or_a_wrong_count(steps: list[tuple[str, float]]) -> None:
    breaker, now_s = Breaker(), 0.0
    for kind, passed_s in steps:
        now_s += passed_s
        breaker.tick(now_s)
        if kind == "ok":
            breaker.succeeded(now_s, SETTINGS)
        elif kind == "bad":
            breaker.failed(now_s, SETTINGS)
        assert breaker.until_s <= now_s + SETTINGS.max_s
        assert breaker._outcomes.successes >= 0
        assert breaker._outcomes.failures >= 0


def samples(seconds: float, count: int = 40, forecast_s: float | None = None) -> Latency:
    latency = Latency()
    for _ in range(count):
        latency.add(seconds, forecast_s)
    return latency


def test_an_engine_far_slower_than_its_siblings_is_an_outlier() -> None:
    siblings = [samples(0.1), samples(0.12)]
    assert is_outlier(samples(1.0), siblings, factor=3, samples_min=30)
    assert not is_outlier(samples(0.25), siblings, factor=3, samples_min=30)


def test_what_was_forecast_to_be_slow_is_no_outlier() -> None:
    siblings = [samples(0.1, forecast_s=0.1), samples(0.12, forecast_s=0.1)]
    assert not is_outlier(samples(1.0, forecast_s=1.0), siblings, factor=3, samples_min=30)
    assert is_outlier(samples(1.0, forecast_s=0.1), siblings, factor=3, samples_min=30)


def test_few_samples_or_one_sibling_say_nothing() -> None:
    assert not is_outlier(samples(9.0, 29), [samples(0.1), samples(0.1)], factor=3, samples_min=30)
    assert not is_outlier(samples(9.0), [samples(0.1)], factor=3, samples_min=30)


@pytest.mark.parametrize(("age_s", "expected"), [(0, 0.1), (3, 0.1), (15, 0.5), (30, 1), (1e9, 1)])
def test_a_new_engines_share_grows_over_the_window(age_s: float, expected: float) -> None:
    assert share(age_s, SlowStartSettings(window_s=30, share_min=0.1)) == expected


def test_without_a_window_an_engine_has_its_share_at_once() -> None:
    assert share(0.0, SlowStartSettings(window_s=0)) == 1
