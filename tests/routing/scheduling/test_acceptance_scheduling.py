"""Rows S1 to S22 of the peers' acceptance scenarios, at the scheduler; scores are in [0, 1] where theirs are in 0..100.

S2, S5, S8, S11, S14, S17 and S20 are not in the table. S16 is tested with the prefix index, whose metric it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from hekla.platform.base.ids import SeededIds
from hekla.routing.backend import Backend
from hekla.routing.body import Body
from hekla.routing.config import LimitSettings, RoutingSettings, SchedulingSettings
from hekla.routing.load import AdapterState, Counts, EngineLoad
from hekla.routing.scheduling.catalog import FILTERS, SCORERS, build_profile
from hekla.routing.scheduling.forecast import Forecaster
from hekla.routing.scheduling.interface import Candidate
from hekla.routing.scheduling.pipeline import Profile
from hekla.routing.scheduling.scorers.cost import NOTICEABLE_S, Cost, relative
from hekla.routing.scheduling.scorers.least_latency import LeastLatency
from hekla.routing.scheduling.scorers.least_request import LeastRequest
from hekla.routing.scheduling.scorers.lora_affinity import LoraAffinity
from hekla.routing.scheduling.scorers.prefix import Prefix
from hekla.routing.scheduling.scorers.session_affinity import SessionAffinity
from hekla.routing.view import LazyView


def engine(name: str, requests: int = 0, **reported: Any) -> Candidate:
    load = EngineLoad()
    load.own = Counts(requests, 0, 0)
    for field, value in reported.items():
        setattr(load, field, value)
    return Candidate(Backend(name, f"http://{name}"), load)


def scores(scorer: Any, request: Any, *candidates: Candidate) -> list[float]:
    return [round(float(score), 9) for score in scorer.score(request, candidates)]


def drawn(profile: Profile, candidates: Sequence[Candidate], count: int) -> Counter[str]:
    """Who is chosen how often."""
    ids, found = SeededIds(3), Counter[str]()
    for _ in range(count):
        request = LazyView(Body.parse(b'{"prompt":"hello"}'), "/", [], model="m", chance=ids.random)
        found[profile.schedule(request, candidates, lambda: 0.0, lambda *_: None).chosen.backend.key] += 1
    return found


def only(scorer: str) -> Profile:
    return build_profile(SchedulingSettings(scorers=((scorer, 1.0),)), LimitSettings())


def test_s1_least_request_falls_linearly(sched: Any) -> None:
    assert scores(LeastRequest(), sched.request(), engine("a"), engine("b", 10), engine("c", 5)) == [1.0, 0.0, 0.5]
    a, b, c = scores(LeastRequest(), sched.request(), engine("a", 1), engine("b", 2), engine("c", 3))
    assert (int(100 * a), int(100 * b), c) == (66, 33, 0)


def test_s3_waiting_weighs_a_hundred_running(sched: Any) -> None:
    pods = [engine("a", 5, running=5), engine("b", 5, running=0), engine("c", 0, running=0)]
    assert [int(100 * s) for s in scores(LeastRequest(), sched.request(), *pods)] == [99, 0, 100]


@pytest.mark.parametrize("name", sorted(SCORERS))
def test_s4_idle_engines_are_no_division_by_zero(name: str, sched: Any) -> None:
    ((scorer, _),) = only(name).scorers
    found = np.asarray(scorer.score(sched.request(), [engine("a"), engine("b"), engine("c")]))
    assert found.shape == (3,)
    assert ((found >= 0) & (found <= 1)).all()
    assert len(np.asarray(scorer.score(sched.request(), [engine("alone")]))) == 1


def test_s6_saturated_engines_are_avoided() -> None:
    pods = [engine("s1", 50, running=10), engine("s2", 50, running=10), engine("idle")]
    for scorer in ("least-request", "cost"):
        assert drawn(only(scorer), pods, 200)["idle"] >= 180


@pytest.mark.parametrize("name", ["kv-usage"])
def test_s7_the_engine_with_room_is_chosen(name: str) -> None:
    pods = [engine("a", kv_usage=0.9), engine("b", kv_usage=0.9), engine("c", kv_usage=0.1)]
    assert drawn(only(name), pods, 200)["c"] >= 180


def test_s9_latency_weighs_first_token_against_the_others(sched: Any) -> None:
    pods = [engine("a", ttft_s=100, tpot_s=10), engine("b", ttft_s=1, tpot_s=20)]
    assert scores(LeastLatency(0.0), sched.request(), *pods) == [1.0, 0.0]
    assert scores(LeastLatency(1.0), sched.request(), *pods) == [0.0, 1.0]


@pytest.mark.parametrize("unknown", [None, 0, -1])
def test_s10_an_engine_without_latencies_scores_half_and_stretches_nothing(unknown: float | None, sched: Any) -> None:
    pods = [engine("new", ttft_s=unknown, tpot_s=1), engine("a", ttft_s=5, tpot_s=5), engine("b", ttft_s=10, tpot_s=10)]
    assert scores(LeastLatency(0.5), sched.request(), *pods) == [0.5, 1.0, 0.0]
    same = [engine("a", ttft_s=5, tpot_s=5), engine("b", ttft_s=5, tpot_s=5)]
    assert scores(LeastLatency(0.5), sched.request(), *same) == [1.0, 1.0]


@pytest.mark.parametrize("scorer", ["prefix-cache", "cost"])
def test_s12_the_same_prompt_goes_where_it_went(scorer: str, sched: Any) -> None:
    bench = sched.bench(["a", "b", "c"], SchedulingSettings(scorers=((scorer, 1.0),)))
    found: Counter[str] = Counter()
    for i in range(230):
        view = sched.request(2000, seed=i)
        chosen = bench.plan(view, now_s=i * 10.0).server
        with bench.dispatcher.begin(chosen, view, now_s=i * 10.0):
            bench.knowledge.holds[chosen.backend.key] = 1984
        found[chosen.backend.key] += i >= 30
    assert max(found.values()) >= 180


def test_s13_engines_without_a_hit_score_nothing_and_are_there(sched: Any) -> None:
    knowledge = sched.knowledge()
    knowledge.holds = {"pod1": 250}
    found = scores(
        Prefix("prefix-cache", knowledge), sched.request(1000), engine("pod0"), engine("pod1"), engine("pod2")
    )
    assert found == [0.0, 0.25, 0.0]


def test_s15_of_equals_top_k_keeps_as_many_as_it_says(sched: Any) -> None:
    knowledge = sched.knowledge()
    knowledge.holds = {"a": 500, "b": 500, "c": 100}
    kept = set()
    for seed in range(40):
        pods = [engine("a"), engine("b"), engine("c")]
        found = scores(Prefix("prefix-cache", knowledge, top_k=1), sched.request(1000, seed=seed), *pods)
        assert sorted(found) == [0.0, 0.0, 0.5]
        kept.add(found.index(0.5))
    assert kept == {0, 1}, "which of equals is drawn by lot"


def test_s18_random_shares_evenly() -> None:
    found = drawn(only("random"), [engine("a"), engine("b"), engine("c")], 1000)
    assert all(abs(found[name] / 1000 - 1 / 3) < 0.10 for name in "abc")


def test_s19_exact_knowledge_counts_the_consecutive_prefix(sched: Any) -> None:
    """A holds blocks 0, 1 and 3 of four, B block 0: what index says is consecutive is what scores."""
    knowledge = sched.knowledge()
    knowledge.holds = {"A": 32, "B": 16}
    assert scores(Prefix("kv-cache", knowledge), sched.request(64), engine("A"), engine("B")) == [0.5, 0.25]


class BrokenKnowledge:
    def matched_tokens(self, request: Any, candidates: Any) -> Any:
        raise ConnectionError("the index is down")


def test_s21_a_plugin_that_fails_scores_nothing_is_counted_and_the_request_is_served(sched: Any) -> None:
    failed: list[str] = []
    broken: Any = BrokenKnowledge()
    profile = Profile(
        (), ((Prefix("kv-cache", broken), 1.0), (LeastRequest(), 1.0)),
        on_error=lambda plugin, error: failed.append(plugin),
    )  # fmt: skip
    decision = profile.schedule(sched.request(), [engine("a", 3), engine("b")], lambda: 0.0, lambda *_: None)
    assert decision.chosen.backend.key == "b"
    assert failed == ["kv-cache"]
    assert list(decision.parts["kv-cache"]) == [0.0, 0.0]


async def test_s22_only_enabled_plugins_have_a_duration(
    start_site: Any, start_backend: Any, kit: Any, tmp_path: Any
) -> None:
    """The peer's router must be restarted for it; here the file is followed."""
    path = tmp_path / "routing.yaml"
    path.write_text("scheduler: {plugins: {Score: {enabled: [cost, random]}}}")
    settings = RoutingSettings(scheduling=SchedulingSettings(config_file=str(path), reload_period_s=0.02))
    backends = [await start_backend(), await start_backend()]  # of one there is nothing to score
    site = await start_site(*kit.objects(*backends), settings=settings)
    counted = "scheduler_plugin_duration_seconds_count"
    assert (await site.post())[0] == 200
    assert site.sample(counted, plugin="random") == 1
    path.write_text("scheduler: {plugins: {Score: {enabled: [least-request]}}}")
    await kit.until(lambda: site.ingress.scheduling.settings.scorers == (("least-request", 1.0),), "the file is in use")
    assert (await site.post())[0] == 200
    assert site.sample(counted, plugin="least-request") == 1
    assert site.sample(counted, plugin="random") == 0


# Beyond the peers' table.


def test_cost_chooses_by_the_seconds(sched: Any) -> None:
    bench = sched.bench(["cold", "cached", "queued"])
    bench.knowledge.holds = {"cached": 900, "queued": 1000}
    bench.loads.add("queued", Counts(1, 5000, 0, 5000, 5000))
    assert bench.plan(sched.request(1000)).server.backend.key == "cached"
    bench.loads.add("cached", Counts(1, 6000, 0, 6000, 6000))
    assert bench.plan(sched.request(1000)).server.backend.key == "cold", "affinity breaks when its queue costs more"


def test_the_cost_in_seconds_is_the_published_formula(sched: Any) -> None:
    bench = sched.bench(["a"])
    bench.knowledge.holds = {"a": 400}
    bench.loads.add("a", Counts(4, 2000, 2, 8000, 8000))
    forecasts = bench.forecaster.forecast(sched.request(1000), [bench.candidate("a")])
    n, queue_s, prefill_s, step_s, next_s = 4, 2.0, 0.6, 0.014, 0.015
    cost = queue_s + prefill_s * (1 + n + 1.5) + 0.3 * (100 * next_s + n * 100 * (next_s - step_s))
    assert Cost(bench.forecaster, d=0.3, rho=1.5).seconds(forecasts)[0] == pytest.approx(cost)


def test_costs_that_differ_by_a_microsecond_in_a_day_are_still_told_apart(sched: Any) -> None:
    found = relative(np.array([86_400.000001, 86_400.0, 86_400.000002]), NOTICEABLE_S)
    assert found[1] > found[0] > found[2]


def test_in_a_mixed_pool_the_fast_engine_gets_more(sched: Any) -> None:
    slow = sched.rates._replace(prefill_tokens_s=250.0, step_base_s=0.04, step_per_request_s=0.004)
    bench, now_s, found = sched.bench(["fast", "slow"], priors={"fast": sched.rates, "slow": slow}), 0.0, Counter[str]()
    for i in range(100):
        view = sched.request(500, seed=i)
        chosen = bench.plan(view, now_s).server
        bench.dispatcher.begin(chosen, view, now_s=now_s)
        found[chosen.backend.key] += 1
    assert 2 <= found["fast"] / found["slow"] <= 8


def test_a_new_engine_that_warms_up_gets_less(sched: Any) -> None:
    bench = sched.bench(["old", "new"])
    bench.loads.load("new").warmup_share = 0.1
    assert {bench.plan(sched.request(seed=i)).server.backend.key for i in range(20)} == {"old"}


def test_lora_affinity_knows_active_room_waiting_and_full(sched: Any) -> None:
    view = sched.request()
    view.upstream_model, view.is_adapter = "lora", True
    pods = [
        engine("active", adapters=AdapterState(frozenset({"lora"}), frozenset(), 1)),
        engine("room", adapters=AdapterState(frozenset({"x"}), frozenset(), 2)),
        engine("waiting", adapters=AdapterState(frozenset({"x"}), frozenset({"lora"}), 1)),
        engine("full", adapters=AdapterState(frozenset({"x"}), frozenset(), 1)),
        Candidate(Backend("loaded", "", models=("base", "lora")), EngineLoad()),
    ]
    assert scores(LoraAffinity(), view, *pods) == [1.0, 0.8, 0.6, 0.0, 0.8]
    view.is_adapter = False
    assert scores(LoraAffinity(), view, *pods) == [1.0] * 5


def test_a_session_stays_and_only_a_lost_engines_sessions_move(sched: Any) -> None:
    pods = [engine(f"e{i}") for i in range(10)]

    def home(session: str, among: list[Candidate]) -> str:
        view = sched.request()
        view.session = session
        return among[int(np.argmax(SessionAffinity().score(view, among)))].backend.key

    before = {f"s{i}": home(f"s{i}", pods) for i in range(300)}
    assert before == {session: home(session, pods) for session in before}
    assert min(Counter(before.values()).values()) > 10
    after = {session: home(session, pods[1:]) for session in before}
    assert all(after[s] == before[s] for s in before if before[s] != "e0")


def test_power_of_two_takes_the_less_loaded_of_two() -> None:
    found = drawn(only("power-of-two"), [engine("busy", 9), engine("calm", 1), engine("calmer", 0)], 600)
    assert found["busy"] == 0
    assert found["calmer"] > found["calm"] > 100


def test_prefill_times_batch_multiplies(sched: Any) -> None:
    bench = sched.bench(["a", "b"], SchedulingSettings(scorers=(("prefill-times-batch", 1.0),)))
    bench.knowledge.holds = {"a": 900}
    bench.loads.add("a", Counts(8, 0, 8, 0, 0))
    assert bench.plan(sched.request(1000)).server.backend.key == "a", "100 · 9 is less than 1000 · 1"
    bench.loads.add("a", Counts(8, 0, 8, 0, 0))
    assert bench.plan(sched.request(1000)).server.backend.key == "b", "100 · 17 is more"


@pytest.mark.parametrize(
    ("name", "set_up"),
    [
        ("circuit", lambda load: setattr(load, "ejected", True)),
        ("ready", lambda load: setattr(load, "suspect_until_s", 1e9)),
        ("waiting", lambda load: setattr(load, "engine_waiting", 99)),
    ],
)
def test_filters_that_judge_engines_never_leave_nobody(name: str, set_up: Any, sched: Any) -> None:
    bad, good = engine("bad"), engine("good")
    set_up(bad.load)
    plugin = build_profile(SchedulingSettings((name,), ()), LimitSettings()).filters[0]
    assert [c.backend.key for c in plugin.keep(sched.request(), [bad, good])] == ["good"]
    assert [c.backend.key for c in plugin.keep(sched.request(), [bad])] == ["bad"]


def test_an_engine_whose_context_is_too_short_is_left_out_unless_all_are(sched: Any) -> None:
    short, long, unknown = (
        Candidate(Backend(str(length), "", max_model_len=length), EngineLoad()) for length in (2048, 8192, 0)
    )
    plugin = build_profile(SchedulingSettings(("context-fits",), ()), LimitSettings()).filters[0]
    assert [c.backend.key for c in plugin.keep(sched.request(4000), [short, long, unknown])] == ["8192", "0"]
    assert [c.backend.key for c in plugin.keep(sched.request(2000), [short, long])] == ["2048", "8192"]
    assert len(plugin.keep(sched.request(9000), [short, long])) == 2, "the engine says how long a prompt may be"


def test_a_decision_explains_itself_with_forecasts_and_exclusions(sched: Any) -> None:
    bench = sched.bench(["a", "b", "gone"])
    bench.loads.load("gone").ejected = True
    bench.knowledge.holds = {"a": 500}
    told = bench.plan(sched.request(1000)).decision.explain()
    assert told["chosen"] == "a"
    assert told["weights"] == {"cost": 1.0}
    assert told["excluded"] == {"gone": "circuit"}
    assert [row["engine"] for row in told["candidates"]] == ["a", "b"]
    assert told["candidates"][0]["forecast"]["uncached_tokens"] == 500


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_filters_keep_order_and_invent_nobody(name: str, sched: Any) -> None:
    pods = [engine(f"e{i}", i, engine_waiting=i) for i in range(30)]
    plugin = build_profile(SchedulingSettings((name,), ()), LimitSettings()).filters[0]
    kept = [candidate.backend.key for candidate in plugin.keep(sched.request(), pods)]
    assert kept == [pod.backend.key for pod in pods if pod.backend.key in set(kept)]


def test_a_cold_prompt_goes_where_the_cache_has_room_and_not_where_it_throws_others_out(sched: Any) -> None:
    priors = dict.fromkeys(("full", "roomy"), sched.rates._replace(kv_capacity_tokens=8000))
    bench = sched.bench(["full", "roomy"], priors=priors)
    bench.loads.add("roomy", Counts(1, 0, 1, 500, 500))
    pool = [bench.candidate("full"), bench.candidate("roomy")]

    def displaced(cached: dict[str, int]) -> list[float]:
        told = Forecaster(bench.knowledge, bench.rates, cached=cached)
        return list(told.displaced(told.forecast(sched.request(1000), pool)))

    assert displaced({}) == [0, 0], "nobody tells"
    assert displaced({"full": 7500, "roomy": 2000}) == [500, 0]
    assert displaced({"full": 8000, "roomy": 8000}) == [0, 0], "everyone throws something out"
    assert displaced({"full": 8000}) == [0, 0], "of one that does not tell nothing is assumed"
    plain, priced = (
        Cost(Forecaster(bench.knowledge, bench.rates, cached={"full": 8000, "roomy": 2000}), kappa=kappa)
        for kappa in (0.0, 6.0)
    )
    assert [int(np.argmax(one.score(sched.request(1000), pool))) for one in (plain, priced)] == [0, 1]
