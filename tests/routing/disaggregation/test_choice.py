"""Where a prompt is computed, and by whom: decided in seconds, in virtual time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hekla.routing.config import SchedulingSettings
from hekla.routing.disaggregation import AllTried, NothingReady
from hekla.routing.pairs.handed import FAILED, HANDED, Handed
from hekla.routing.pairs.settings import DisaggregationSettings
from hekla.routing.scheduling.interface import Busy
from hekla.routing.scheduling.priors import kind_of

ONE = {"g": (["p"], ["d"])}
TWO = {"g": (["p", "q"], ["d", "e"])}


def test_a_long_uncached_prompt_is_prefilled_on_a_prefill_engine(pd: Any) -> None:
    assert pd.bench(ONE).way(pd.request(2000)) == ("p>d", "faster")


def test_a_short_prompt_stays_on_the_decode_engine(pd: Any) -> None:
    assert pd.bench(ONE).way(pd.request(10)) == ("d", "short")


def test_there_is_one_length_from_which_prompts_are_handed_over(pd: Any) -> None:
    ways = [pd.bench(ONE).plan(pd.request(tokens)).prefill is not None for tokens in range(1, 200)]
    assert ways == sorted(ways), "never back again"
    assert 10 < ways.index(True) < 100


def test_the_busier_the_decode_engine_the_shorter_the_prompts_that_leave_it(pd: Any) -> None:
    def shortest(others: int) -> int:
        bench = pd.bench(ONE)
        for _ in range(others):
            bench.occupy("d", 100, decode_only=True)
        return next(tokens for tokens in range(1, 200) if bench.plan(pd.request(tokens)).prefill is not None)

    assert shortest(20) < shortest(5) < shortest(0)


def test_a_prompt_cached_on_the_decode_engine_stays_there(pd: Any) -> None:
    bench = pd.bench(ONE)
    bench.knowledge.holds = {"d": 1990}
    assert bench.way(pd.request(2000)) == ("d", "cached")
    bench.knowledge.holds = {"d": 1990, "p": 1990}
    assert bench.way(pd.request(2000)) == ("d", "cached"), "nor is it moved when both know it"


def test_a_backed_up_prefill_side_is_left_alone_until_it_has_caught_up(pd: Any) -> None:
    bench = pd.bench(ONE)
    for _ in range(3):
        bench.occupy("p", 2000, prefill_only=True)
    assert bench.way(pd.request(2000)) == ("d", "backed_up")
    assert pd.bench(ONE).way(pd.request(2000))[0] == "p>d"


def test_a_queue_on_one_prefill_engine_sends_the_prompt_to_the_other(pd: Any) -> None:
    bench = pd.bench({"g": (["p", "q"], ["d"])})
    bench.occupy("p", 3000, prefill_only=True)
    assert bench.way(pd.request(2000)) == ("q>d", "faster")


def test_a_prefill_ends_and_its_engine_is_asked_again(pd: Any) -> None:
    bench = pd.bench(ONE)
    trips = [bench.occupy("p", 2000, prefill_only=True) for _ in range(3)]
    assert bench.way(pd.request(2000))[0] == "d"
    for trip in trips:
        bench.now_s += 2.0
        trip.first_token(bench.now_s)
        trip.end(bench.now_s, usage=None, succeeded=True)
    assert bench.way(pd.request(2000))[0] == "p>d"


def test_the_pair_is_chosen_jointly(pd: Any) -> None:
    """Alone d is the better decode engine, but its group's prefill engine has a queue."""
    bench = pd.bench({"g": (["p"], ["d"]), "h": (["q"], ["e"])}, labels={})
    bench.occupy("e", 10, decode_only=True)
    bench.occupy("p", 4000, prefill_only=True)
    assert bench.way(pd.request(3000)) == ("q>e", "faster")


def test_a_decode_engine_that_holds_part_of_the_prompt_needs_less_transferred(pd: Any) -> None:
    slow = DisaggregationSettings(transfer_tokens_s=2000.0)
    bench = pd.bench({"g": (["p"], ["d", "e"])}, settings=slow, tokens_max=0)
    bench.knowledge.holds = {"e": 1000}
    plan = bench.plan(pd.request(2000))
    assert plan.server.backend.key == "e"
    assert plan.verdict.seconds.transfer_s == pytest.approx(0.01 + 1000 / 2000)


def test_a_prefill_engine_that_holds_the_prompt_is_preferred(pd: Any) -> None:
    bench = pd.bench({"g": (["p", "q"], ["d"])})
    bench.knowledge.holds = {"q": 1500}
    assert bench.way(pd.request(2000))[0] == "q>d"


def test_faster_prefill_engines_are_preferred_and_slow_ones_left_out(pd: Any) -> None:
    fast = pd.rates._replace(prefill_tokens_s=10_000.0)
    bench = pd.bench({"g": (["p", "q"], ["d"])}, priors={"q": fast})
    assert bench.way(pd.request(2000))[0] == "q>d"
    crawling = pd.rates._replace(prefill_tokens_s=100.0)
    assert pd.bench(ONE, priors={"p": crawling}).way(pd.request(2000))[0] == "d"


def test_the_same_revision_comes_first_even_when_it_costs_more(pd: Any) -> None:
    label = "modelserving.volcano.sh/revision"
    labels = {"p": {label: "1"}, "q": {label: "2"}, "d": {label: "2"}}
    bench = pd.bench({"": (["p", "q"], ["d"])}, labels=labels)
    bench.knowledge.holds = {"p": 1900}
    assert bench.way(pd.request(2000))[0] == "q>d"
    assert bench.way(pd.request(2000), tried=["q"])[0] == "p>d", "another revision is better than none"


def test_pairs_never_cross_groups(pd: Any) -> None:
    bench = pd.bench({"g": (["p"], ["d"]), "h": (["q"], ["e"])})
    seen = {bench.way(pd.request(2000, seed=seed))[0] for seed in range(20)}
    assert seen == {"p>d", "q>e"}


def test_within_a_pool_any_two_pair(pd: Any) -> None:
    bench = pd.bench({"": (["p", "q"], ["d", "e"])})
    bench.occupy("p", 3000, prefill_only=True)
    bench.occupy("d", 100, decode_only=True)
    assert bench.way(pd.request(2000))[0] == "q>e"


@pytest.mark.parametrize(("tokens", "expected"), [(500, ("d", "threshold")), (501, ("p>d", "threshold"))])
def test_a_threshold_in_tokens_may_decide_instead(pd: Any, tokens: int, expected: Any) -> None:
    assert pd.bench(ONE, tokens_max=500).way(pd.request(tokens)) == expected
    settings = DisaggregationSettings(local_prefill_tokens_max=500)
    assert pd.bench(ONE, settings=settings).way(pd.request(tokens)) == expected
    bench = pd.bench(ONE, tokens_max=500)
    bench.knowledge.holds = {"d": 1}
    assert bench.way(pd.request(501)) == ("d", "threshold"), "only what is not cached counts"


def test_a_threshold_of_nothing_hands_everything_over(pd: Any) -> None:
    bench = pd.bench(ONE, tokens_max=0)
    assert bench.way(pd.request(1)) == ("p>d", "threshold")
    bench.knowledge.holds = {"d": 2000}
    assert bench.way(pd.request(2000)) == ("p>d", "threshold")


def test_a_decode_engine_that_only_decodes_never_computes_a_prompt(pd: Any) -> None:
    labels = {"d": {"hekla.io/decode-only": "true"}}
    bench = pd.bench(ONE, labels=labels)
    assert bench.way(pd.request(5)) == ("p>d", "decode_only")
    with pytest.raises(AllTried):
        bench.plan(pd.request(5), tried=["p"])
    assert pd.bench(ONE, connector="sglang").way(pd.request(5)) == ("p>d", "decode_only")


def test_without_a_prefill_engine_left_the_decode_engine_does_it(pd: Any) -> None:
    for tokens_max in (None, 0):
        bench = pd.bench(ONE, tokens_max=tokens_max)
        assert bench.way(pd.request(2000), tried=["p"]) == ("d", "no_prefill_engine")
    both = pd.bench({"g": (["p"], ["d"]), "h": (["q"], ["e"])}, tokens_max=0)
    assert both.way(pd.request(2000), tried=["p"]) == ("q>e", "threshold"), "another group's pair comes first"


FULL_AT_ONE = SchedulingSettings(filters=("capacity",), args={"capacity": {"requests_max": 1}})


def test_prefill_engines_that_filters_refuse_count_as_none(pd: Any) -> None:
    bench = pd.bench({"g": (["p", "q"], ["d"])}, scheduling=FULL_AT_ONE)
    bench.occupy("p", 10, prefill_only=True)
    assert bench.way(pd.request(2000)) == ("q>d", "faster")
    bench.occupy("q", 10, prefill_only=True)
    assert bench.way(pd.request(2000)) == ("d", "no_prefill_engine")


def test_busy_engines_are_told_from_none(pd: Any) -> None:
    bench = pd.bench(ONE, scheduling=FULL_AT_ONE, labels={"d": {"hekla.io/decode-only": "true"}})
    bench.occupy("p", 10, prefill_only=True)
    with pytest.raises(Busy):
        bench.plan(pd.request(2000))
    bench = pd.bench(ONE, scheduling=FULL_AT_ONE)
    bench.occupy("d", 10, decode_only=True)
    with pytest.raises(Busy):
        bench.plan(pd.request(2000))


def test_no_engines_is_another_answer_than_none_left(pd: Any) -> None:
    with pytest.raises(NothingReady):
        pd.bench({}).plan(pd.request(10))
    with pytest.raises(AllTried):
        pd.bench(ONE).plan(pd.request(10), tried=["d"])


def test_a_computed_prompt_is_offered_to_another_decode_engine_of_its_group(pd: Any) -> None:
    bench = pd.bench({"g": (["p"], ["d", "e"]), "h": (["q"], ["f"])})
    view = pd.request(2000)
    view.memo[HANDED] = Handed("p", b"{}", 1, "t", until_s=20.0)
    plan = bench.plan(view, tried=["d"])
    assert (plan.server.backend.key, plan.prefill, plan.verdict.reason) == ("e", None, "handed")
    bench.now_s = 20.0
    assert bench.plan(view, tried=["d"]).verdict.reason == "faster", "the lease is over"


def test_after_a_failed_hand_over_the_next_engine_computes_the_prompt_itself(pd: Any) -> None:
    view = pd.request(2000)
    view.memo[FAILED] = True
    assert pd.bench(TWO).plan(view).verdict.reason == "hand_over_failed"
    only = {name: {"hekla.io/decode-only": "true"} for name in "de"}
    assert pd.bench(TWO, labels=only).plan(view).prefill is not None, "where it can"


@pytest.mark.parametrize("scorer", ["least-request", "random", "least-prefill"])
def test_other_scorers_choose_both_engines_and_seconds_only_the_way(scorer: str, pd: Any) -> None:
    bench = pd.bench(TWO, scheduling=SchedulingSettings(scorers=((scorer, 1.0),)))
    found = {bench.way(pd.request(2000, seed=seed))[0] for seed in range(60)}
    assert found == {"p>d", "p>e", "q>d", "q>e"}
    assert {bench.way(pd.request(10, seed=seed)) for seed in range(30)} == {("d", "short"), ("e", "short")}


def test_what_else_an_operator_weighs_keeps_its_weight(pd: Any) -> None:
    """A request less on e outweighs what its cost is more, as without separate prefill."""
    bench = pd.bench(
        {"g": (["p"], ["d", "e"])}, scheduling=SchedulingSettings(scorers=(("cost", 1.0), ("least-request", 100.0)))
    )
    bench.knowledge.holds = {"d": 1000}
    bench.occupy("d", 100, decode_only=True)
    assert bench.way(pd.request(2000))[0] == "p>e"


def test_requests_that_cant_be_handed_over_go_to_one_engine(pd: Any) -> None:
    assert pd.bench(ONE).way(pd.request(2000, path="/v1/embeddings")) == ("d", "one_engine_only")


def test_a_plan_explains_where_the_prompt_is_computed_and_why(pd: Any) -> None:
    told = json.loads(json.dumps(pd.bench(ONE).plan(pd.request(2000)).explain()))
    assert (told["chosen"], told["prefill"]["engine"]) == ("d", "p")
    assert (told["prefill"]["way"], told["prefill"]["reason"]) == ("remote", "faster")
    seconds = told["prefill"]["seconds"]
    assert seconds["local_s"] == pytest.approx(0.01 + 2.0 * 2)
    assert seconds["remote_s"] == pytest.approx(0.01 + 2.0 + seconds["transfer_s"] + 0.01)
    alone = pd.bench(ONE).plan(pd.request(2000), tried=["p"]).explain()["prefill"]
    assert (alone["way"], alone["engine"]) == ("local", None)
    assert "remote_s" not in alone["seconds"], "infinity is no JSON"


def test_hand_overs_that_take_long_keep_more_prompts_local(pd: Any) -> None:
    bench = pd.bench(ONE)
    assert bench.way(pd.request(200))[0] == "p>d"
    for _ in range(50):
        bench.planner.pairs.transfers.observe(kind_of(bench.backends["d"]), 200, 1.0)
    assert bench.way(pd.request(200)) == ("d", "short")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("local_prefill_tokens_max", -1), ("hysteresis", 1.0), ("hysteresis", -0.1), ("transfer_tokens_s", 0.0),
        ("transfer_setup_s", -1.0), ("lease_s", -1.0), ("bootstrap_timeout_s", 0.0), ("delayed_min", -1.0),
    ],
)  # fmt: skip
def test_wrong_settings_name_the_field_and_the_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"disaggregation.{field} is {value}; allowed: "):
        DisaggregationSettings(**{field: value})
