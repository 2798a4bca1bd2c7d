"""The forecast of a single engine in plain numbers says what the forecast of many in arrays says."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from hekla.routing.load import Counts
from hekla.routing.scheduling.interface import Busy


@pytest.mark.parametrize("seed", range(60))
def test_plain_numbers_and_arrays_forecast_the_same(sched: Any, seed: int) -> None:
    chance = random.Random(seed)
    speed = sched.rates._replace(
        kv_capacity_tokens=chance.choice([0.0, 5_000.0, 100_000.0]), overhead_s=0.01, step_per_context_token_s=1e-6
    )
    bench = sched.bench(["a"], priors={"a": speed})
    busy = chance.randrange(0, 20)
    tokens = busy * chance.randrange(1, 900)
    bench.loads.add("a", Counts(busy, tokens // 3, busy // 2, tokens, tokens))
    candidate = bench.candidate("a")
    candidate.load.set_head(tokens // 9, 4.0)
    candidate.load.engine_waiting = chance.choice([None, 0, 3])
    candidate.load.peers = Counts(kv_tokens=chance.choice([0, 700]))
    candidate.load.set_memory(chance.choice([None, 0.2, 0.7]))
    bench.loads.add("a", Counts(1, 50, 0, 80, 80))
    candidate.load.set_foreign(chance.randrange(0, 30), chance.randrange(0, 9))
    for seconds in (0.2, 0.5):
        bench.rates.observe_first_token(candidate.backend, 900, seconds)
        bench.rates.observe_step(candidate.backend, 3, 2000, seconds / 9)
    bench.knowledge.holds = {"a": chance.randrange(0, 1500)}
    limit = b'{"max_tokens": 5}' if chance.random() < 0.5 else b"{}"
    views = [sched.request(chance.randrange(1, 1200)) for _ in range(2)]
    views[1].token_ids = views[0].token_ids
    for view in views:
        view.now_s, view.body = 5.0, type(view.body).parse(limit)
    many = bench.forecaster.forecast(views[0], [candidate])[0]
    one = bench.forecaster.of_chosen(views[1], candidate)
    assert dataclasses.astuple(one) == pytest.approx(dataclasses.astuple(many), rel=1e-9)


def test_a_lone_engine_is_not_scored_and_its_forecast_is_made_once(sched: Any) -> None:
    bench, view = sched.bench(["a"]), sched.request(1000)
    plan = bench.plan(view, now_s=1.0)
    bench.forecaster.of_chosen(view, plan.server)
    bench.dispatcher.begin(plan.server, view, now_s=1.0)
    assert (plan.server.backend.key, dict(plan.decision.parts), bench.knowledge.questions) == ("a", {}, 1)


def test_a_lone_engine_that_is_full_is_busy_all_the_same(sched: Any) -> None:
    bench = sched.bench(["a"])
    bench.loads.add("a", Counts(2048, 0, 0, 0, 0))
    with pytest.raises(Busy):
        bench.plan(sched.request())
