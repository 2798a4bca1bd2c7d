"""Rates: learned from honest observations, robust against absurd ones, never useless."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from hekla.routing.backend import Backend
from hekla.routing.load import EngineLoad
from hekla.routing.scheduling.candidates import Candidates, Pool
from hekla.routing.scheduling.interface import Candidate
from hekla.routing.scheduling.priors import MODEST, kind_of, shipped_prior
from hekla.routing.scheduling.rates import LESSONS_PER_S, PREFILL_S, EngineRates, Lessons, RateBook
from hekla.routing.scheduling.regression import LinearFit, ScaleFit


def engine(name: str = "e", **fields: Any) -> Backend:
    return Backend(name, f"http://{name}", **fields)


def book(prior: EngineRates = MODEST) -> RateBook:
    return RateBook(lambda _: prior, lambda _: "kind")


def teach(rates: RateBook, backend: Backend, tokens_s: float, count: int = 60, *, seed: int = 1) -> None:
    chance = random.Random(seed)
    for _ in range(count):
        tokens = chance.randrange(200, 8000)
        rates.observe_first_token(backend, tokens, (0.05 + tokens / tokens_s) * chance.uniform(0.95, 1.05))


@pytest.mark.parametrize("true_rate", [150.0, 4000.0, 60_000.0])
def test_a_prior_that_is_far_off_is_corrected_within_a_minute_of_traffic(true_rate: float) -> None:
    rates = book()
    teach(rates, engine(), true_rate)
    assert rates.rates(engine()).prefill_tokens_s == pytest.approx(true_rate, rel=0.15)


def test_steps_are_learned_as_a_base_and_what_each_request_adds() -> None:
    rates, chance = book(), random.Random(2)
    for _ in range(120):
        n = chance.randrange(1, 100)
        context = n * chance.randrange(500, 4000)
        rates.observe_step(engine(), n, context, 0.008 + 0.00006 * n + 5e-8 * context)
    learned = rates.rates(engine())
    for n, context in ((1, 1000), (50, 100_000), (100, 300_000)):
        assert learned.step_s(n, context) == pytest.approx(0.008 + 0.00006 * n + 5e-8 * context, rel=0.1)


def test_one_absurd_observation_among_good_ones_changes_next_to_nothing() -> None:
    rates = book()
    teach(rates, engine(), 10_000)
    before = rates.rates(engine())
    rates.observe_first_token(engine(), 1000, 3600.0)
    rates.observe_step(engine(), 1, 1000, 500.0)
    after = rates.rates(engine())
    assert after.prefill_tokens_s == pytest.approx(before.prefill_tokens_s, rel=0.1)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0, 0.0, 1e-300, 1e300])
def test_nothing_observed_makes_a_rate_useless(seconds: float) -> None:
    rates = book()
    for tokens in (0.0, 1.0, 1e12, math.nan):
        for _ in range(40):
            rates.observe_first_token(engine(), tokens, seconds)
            rates.observe_step(engine(), tokens, tokens, seconds)
    learned = rates.rates(engine())
    assert all(math.isfinite(value) and value >= 0 for value in learned)
    assert learned.prefill_tokens_s > 0
    assert learned.step_s(1, 1000) > 0


def test_in_a_pool_whose_labels_tell_nothing_the_fast_and_the_slow_are_told_apart() -> None:
    rates, fast, slow = book(), engine("fast"), engine("slow")
    for i in range(40):
        teach(rates, fast, 32_000, 1, seed=i)
        teach(rates, slow, 4_000, 1, seed=i)
    ratio = rates.rates(fast).prefill_tokens_s / rates.rates(slow).prefill_tokens_s
    assert 5 <= ratio <= 12


def test_equal_engines_stay_equal_whoever_was_observed() -> None:
    rates, seen, unseen = book(), engine("seen"), engine("unseen")
    rates.rates(unseen)
    teach(rates, seen, 10_000, 100)
    assert rates.rates(seen) == rates.rates(unseen)


def test_an_engine_that_is_throttled_is_found_out() -> None:
    rates, well, hot = book(), engine("well"), engine("hot")
    for i in range(60):
        teach(rates, well, 10_000, 1, seed=i)
        teach(rates, hot, 10_000, 1, seed=i)
    for i in range(60):
        teach(rates, well, 10_000, 1, seed=i)
        teach(rates, hot, 5_000, 1, seed=i)
    assert rates.rates(well).prefill_tokens_s / rates.rates(hot).prefill_tokens_s == pytest.approx(2, rel=0.3)


def test_vectors_follow_what_is_learned_and_who_is_forgotten() -> None:
    rates = book()
    backends = [engine(f"e{i}") for i in range(200)]
    pool = Pool([Candidate(backend, EngineLoad()) for backend in backends], None)
    assert rates.vectors(Candidates(pool)).shape[1] == 200
    teach(rates, backends[7], 123.0)
    assert 1 / rates.vectors(Candidates(pool))[PREFILL_S][7] == pytest.approx(123.0, rel=0.2)
    rates.forget({backend.key for backend in backends[100:]})
    rates.rates(engine("new"))
    assert rates.vectors(Candidates(pool)).shape[1] == 200, "the forgotten are met again, in rows of their own"
    assert all(1 / value > 0 for value in rates.vectors(Candidates(pool))[PREFILL_S])


def test_forecast_errors_are_told_by_kind() -> None:
    rates = book()
    for _ in range(50):
        rates.observe_errors(engine(), ttft=0.2, tpot=0.1)
    assert rates.errors()["kind"] == pytest.approx((0.2, 0.1))
    rates.observe_errors(engine(), ttft=math.nan)
    assert rates.errors()["kind"].ttft == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("models", "labels", "prefill", "step_of_64_ms"),
    [
        (("meta-llama/Llama-3.1-8B-Instruct",), {"ray.io/accelerator-type": "NVIDIA-H100"}, 34_538, 11.6),
        (("Qwen/Qwen3-32B",), {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}, 6152, 32.4),
        (("Llama-3-8B",), {"accelerator": "L4"}, 4238, 115.0),
        (("Llama-3-8B",), {"accelerator": "L40S"}, 10_346, 40.8),
    ],
)
def test_known_models_on_known_accelerators_start_at_the_shipped_table(
    models: tuple[str, ...], labels: dict[str, str], prefill: float, step_of_64_ms: float
) -> None:
    rates = shipped_prior(engine(models=models, labels=labels))
    assert rates.prefill_tokens_s == prefill
    assert 1000 * rates.step_s(64, 64 * 1024) == pytest.approx(step_of_64_ms, rel=0.05)


def test_what_the_table_does_not_know_starts_modestly_and_is_a_kind_of_its_own() -> None:
    unknown = engine(models=("smollm2-135m",), labels={"accelerator": "H100"})
    assert shipped_prior(unknown) == shipped_prior(engine()) == MODEST
    assert kind_of(unknown) == "smollm2-135m@h100"
    assert kind_of(engine()) == "@unknown"


def test_a_linear_fit_never_gives_a_negative_cause() -> None:
    fit, chance = LinearFit((1.0, 1.0), memory=100), random.Random(5)
    for _ in range(200):
        x = chance.uniform(1, 100)
        fit.observe((1.0, x), max(10 - 0.05 * x, 0.1))
    assert min(fit.coefficients) >= 0
    assert fit.predict((1.0, 50.0)) == pytest.approx(7.5, rel=0.3)


def test_a_scale_forgets_what_no_longer_holds() -> None:
    fit = ScaleFit(prior_weight=1, memory=20)
    for _ in range(100):
        fit.observe(1.0)
    for _ in range(100):
        fit.observe(3.0)
    assert fit.factor == pytest.approx(3.0, rel=0.1)


def test_of_a_flood_of_requests_an_even_share_teaches_and_of_a_trickle_every_one() -> None:
    book = RateBook(shipped_prior, kind_of)
    engine = Backend("ns/e", "http://e:1")
    assert all(book.may_learn("prefill", engine, i / 40) for i in range(200))
    # A thousand a second, in bursts of ten at one instant.
    taught = [book.may_learn("prefill", engine, 10.0 + i // 10 / 100) for i in range(5000)]
    assert sum(taught[2000:]) == pytest.approx(3 * LESSONS_PER_S, rel=0.1)
    places = {i % 10 for i, yes in enumerate(taught) if yes and i >= 2000}
    assert places != {0}, "the first of each burst alone would be a biased choice"


def test_first_tokens_and_steps_are_counted_apart() -> None:
    book = RateBook(shipped_prior, kind_of)
    engine = Backend("ns/e", "http://e:1")
    taught: dict[str, int] = {"prefill": 0, "step": 0}
    whats: tuple[Lessons, Lessons] = ("prefill", "step")
    for i in range(4000):
        for what in whats:
            taught[what] += book.may_learn(what, engine, i / 1000)
    assert taught["prefill"] == pytest.approx(taught["step"], rel=0.05)
