"""Forecasts: numbers to reckon with in one's head, at a thousand tokens a second."""

from __future__ import annotations

from typing import Any

import pytest

from hekla.routing.config import SchedulingSettings
from hekla.routing.load import Counts


def test_a_first_token_waits_for_the_queue_and_for_what_is_not_cached(sched: Any) -> None:
    bench = sched.bench(["a", "b"])
    bench.knowledge.holds = {"a": 600}
    bench.loads.add("a", Counts(2, 3000, 0, 3000, 3000))
    forecasts = bench.forecaster.forecast(sched.request(1000), [bench.candidate("a"), bench.candidate("b")])
    a, b = forecasts
    assert (a.matched_tokens, a.uncached_tokens, a.queue_s, a.prefill_s) == pytest.approx((600, 400, 3.0, 0.4))
    assert (a.ttft_s, b.ttft_s) == pytest.approx((3.4, 1.0))
    assert (a.step_s, b.step_s) == pytest.approx((0.013, 0.011))


def test_a_prompt_that_is_cached_whole_still_computes_its_last_token(sched: Any) -> None:
    bench = sched.bench(["a"])
    bench.knowledge.holds = {"a": 5000}
    (forecast,) = bench.forecaster.forecast(sched.request(1000), [bench.candidate("a")])
    assert (forecast.matched_tokens, forecast.uncached_tokens) == (1000, 1)


def test_what_the_engine_must_have_done_of_a_prefill_is_not_waited_for(sched: Any) -> None:
    bench = sched.bench(["a"])
    bench.dispatcher.begin(bench.candidate("a"), sched.request(4000), now_s=0.0)
    waits = []
    for now_s in (0.0, 1.0, 3.0, 60.0):
        view = sched.request(100)
        view.now_s = now_s
        waits.append(bench.forecaster.forecast(view, [bench.candidate("a")])[0].queue_s)
    assert waits == pytest.approx([4.0, 3.0, 1.0, 0.4]), "one that never ends is still not taken to be done"


def test_memory_is_waited_for_when_what_is_held_and_what_comes_does_not_fit(sched: Any) -> None:
    bench = sched.bench(["a", "roomy"], priors={
        "a": sched.rates._replace(kv_capacity_tokens=10_000), "roomy": sched.rates._replace(kv_capacity_tokens=1e6),
    })  # fmt: skip
    for engine in ("a", "roomy"):
        bench.loads.add(engine, Counts(10, 0, 10, 9000, 9000))
    a, roomy = bench.forecaster.forecast(sched.request(1000), [bench.candidate("a"), bench.candidate("roomy")])
    # 9000 held + 1000 + 50 to come − 9500 = 550 missing: 0.61 requests of 900 tokens, of which one ends each
    # O·step/n = 100 · 0.021 / 10 s.
    assert a.memory_wait_s == pytest.approx(550 / 900 * 100 * 0.021 / 10)
    assert a.kv_share == pytest.approx(1.0)
    assert roomy.memory_wait_s == 0


def test_a_prefix_that_every_replica_counts_is_held_once_when_the_engine_reports_so(sched: Any) -> None:
    bench = sched.bench(["a"], priors={"a": sched.rates._replace(kv_capacity_tokens=10_000)})
    bench.loads.forget({"a"})
    bench.loads.add("a", Counts(5, 0, 5, 4500, 4500))
    bench.loads.apply_peer("peer", 1, {"a": Counts(5, 0, 5, 4500, 4500)}, now_s=0.0)
    bench.loads.report("a", 10, 0)
    bench.loads.report_memory("a", 0.5, None)
    view = sched.request(1000)
    (forecast,) = bench.forecaster.forecast(view, [bench.candidate("a")])
    assert (forecast.memory_wait_s, forecast.kv_share) == (0.0, pytest.approx(0.6))
    bench.loads.add("a", Counts(2, 0, 2, 2000, 2000))
    view.now_s = 1.0
    assert bench.forecaster.forecast(view, [bench.candidate("a")])[0].kv_share == pytest.approx(0.8), "what came since"


def test_requests_that_wait_in_the_engine_are_not_in_what_it_reports(sched: Any) -> None:
    bench = sched.bench(["a"], priors={"a": sched.rates._replace(kv_capacity_tokens=10_000)})
    bench.loads.forget({"a"})
    bench.loads.apply_peer("peer", 1, {"a": Counts(10, 0, 5, 9000, 9000)}, now_s=0.0)
    bench.loads.report("a", 5, 5)
    bench.loads.report_memory("a", 0.45, None)
    (forecast,) = bench.forecaster.forecast(sched.request(1000), [bench.candidate("a")])
    assert forecast.kv_share == pytest.approx(1.0)


def test_a_capacity_that_is_not_known_makes_nobody_wait(sched: Any) -> None:
    bench = sched.bench(["a"])
    bench.loads.add("a", Counts(100, 0, 100, 10**9, 10**9))
    bench.loads.load("a").kv_usage = 0.7
    (forecast,) = bench.forecaster.forecast(sched.request(1000), [bench.candidate("a")])
    assert (forecast.memory_wait_s, forecast.kv_share) == (0, 0.7)


def test_several_plugins_share_one_look_up_and_one_forecast(sched: Any) -> None:
    scorers = (("cost", 1.0), ("prefix-cache", 1.0), ("kv-cache", 1.0), ("prefill-times-batch", 1.0))
    bench = sched.bench(["a", "b", "c"], SchedulingSettings(scorers=scorers))
    view = sched.request()
    bench.plan(view)
    assert bench.knowledge.questions == 1
    bench.plan(view, now_s=1.0, tried=["a"])
    assert bench.knowledge.questions == 2, "a further try looks again: the world has moved on"


def test_requests_that_came_past_the_ingress_count_as_the_engine_reports_them(sched: Any) -> None:
    bench = sched.bench(["a", "b"])
    bench.loads.report("a", 20, 5)
    a, b = bench.forecaster.forecast(sched.request(), [bench.candidate("a"), bench.candidate("b")])
    assert a.step_s > b.step_s
    assert a.queue_s > 0
    bench.loads.add("b", Counts(20, 0, 20, 0, 0))
    bench.loads.report("b", 20, 0)
    again = bench.forecaster.forecast(sched.request(), [bench.candidate("b")])
    assert again[0].step_s == pytest.approx(0.01 + 0.001 * 21), "what is known of here is not counted twice"
