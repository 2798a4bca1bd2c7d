"""Filter, score, pick: rows S1, S3, S4, S18 and the answers busy and best."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from hekla.platform.base.ids import SeededIds
from hekla.routing.backend import Backend
from hekla.routing.body import Body
from hekla.routing.config import LimitSettings, SchedulingSettings
from hekla.routing.load import Counts, EngineLoad
from hekla.routing.scheduling.catalog import build_profile
from hekla.routing.scheduling.decision import Decision
from hekla.routing.scheduling.interface import Busy, Candidate
from hekla.routing.scheduling.scorers.least_prefill import LeastPrefill
from hekla.routing.scheduling.scorers.least_request import LeastRequest, base
from hekla.routing.view import LazyView


def candidate(
    name: str, requests: int = 0, *, running: int | None = None, waiting: int | None = None, tokens: int = 0
) -> Candidate:
    load = EngineLoad()
    load.own = Counts(requests, tokens, 0)
    load.running, load.engine_waiting = running, waiting
    return Candidate(Backend(name, f"http://{name}"), load)


def view(seed: int = 1, body: bytes = b"{}") -> LazyView:
    return LazyView(Body.parse(body), "/v1/completions", [], model="m", chance=SeededIds(seed).random)


def decide(scorers: Any, *candidates: Candidate, filters: tuple[str, ...] = ("ready",), seed: int = 1) -> Decision:
    profile = build_profile(SchedulingSettings(filters, scorers), LimitSettings())
    return profile.schedule(view(seed), candidates, lambda: 0.0, lambda *_: None)


def test_least_request_scores_fall_linearly_with_load() -> None:
    scores = LeastRequest().score(view(), [candidate("a"), candidate("b", 10), candidate("c", 5)])
    assert list(scores) == [1.0, 0.0, 0.5]


def test_a_waiting_request_weighs_a_hundred_running_ones() -> None:
    in_flight, running = np.array([5.0, 5, 0, 5, 2]), np.array([5, 0, 0, np.nan, 9])
    assert base(in_flight, running).tolist() == [5, 505, 0, 5, 2]
    loads = [candidate("a", 5, running=5), candidate("b", 5, running=0), candidate("c", 0, running=0)]
    scores = LeastRequest().score(view(), loads)
    assert [int(100 * score) for score in scores] == [99, 0, 100]


@pytest.mark.parametrize("scorer", [LeastRequest(), LeastPrefill()])
def test_idle_engines_all_score_one(scorer: Any) -> None:
    assert list(scorer.score(view(), [candidate("a"), candidate("b")])) == [1.0, 1.0]


def test_least_prefill_prefers_fewer_tokens_to_prefill() -> None:
    scores = LeastPrefill().score(view(), [candidate("a", tokens=4000), candidate("b", tokens=1000)])
    assert list(scores) == [0.0, 0.75]


def test_random_shares_evenly() -> None:
    ids = SeededIds(3)
    profile = build_profile(SchedulingSettings(("ready",), (("random", 1.0),)), LimitSettings())
    three = [candidate(name) for name in "abc"]
    request = LazyView(Body.parse(b"{}"), "/", [], model="m", chance=ids.random)
    drawn = Counter(
        profile.schedule(request, three, lambda: 0.0, lambda *_: None).chosen.backend.key for _ in range(1000)
    )
    assert all(abs(drawn[name] / 1000 - 1 / 3) < 0.10 for name in "abc")


def test_equals_are_drawn_by_lot() -> None:
    drawn = {
        decide((("least-request", 1.0),), candidate("a"), candidate("b"), seed=s).chosen.backend.key for s in range(20)
    }
    assert drawn == {"a", "b"}


def test_weights_decide_between_scorers() -> None:
    few_requests, few_tokens = candidate("r", 1, tokens=1000), candidate("t", 2, tokens=0)
    by_requests = decide((("least-request", 3.0), ("least-prefill", 1.0)), few_requests, few_tokens)
    by_tokens = decide((("least-request", 1.0), ("least-prefill", 3.0)), few_requests, few_tokens)
    assert (by_requests.chosen, by_tokens.chosen) == (few_requests, few_tokens)
    told = by_tokens.explain()
    assert told["chosen"] == "t"
    assert told["candidates"][0] == {
        "engine": "t", "total": 3.0, "scores": {"least-request": 0.0, "least-prefill": 1.0}, "requests": 2,
    }  # fmt: skip


def test_full_engines_are_left_out_and_busy_is_said_when_all_are() -> None:
    full, free = candidate("full", 2048), candidate("free", 2047)
    assert decide((), full, free, filters=("capacity",)).chosen is free
    with pytest.raises(Busy, match="capacity"):
        decide((), full, filters=("capacity",))


def test_a_long_queue_is_avoided_but_never_a_reason_to_refuse() -> None:
    # The reference refuses when every engine has ten waiting (its defect 3); the engine would have queued the request.
    long, short = candidate("long", waiting=10), candidate("short", waiting=9)
    assert decide((), long, short, filters=("waiting",)).chosen is short
    assert decide((), long, filters=("waiting",)).chosen is long


def test_suspects_are_avoided_only_while_others_are_left() -> None:
    suspect, trusted = candidate("suspect"), candidate("trusted", 9)
    suspect.load.suspect_until_s = 5.0
    assert decide((("least-request", 1.0),), suspect, trusted).chosen is trusted
    assert decide((("least-request", 1.0),), suspect).chosen is suspect


def test_lora_affinity_keeps_engines_that_have_the_adapter() -> None:
    profile = build_profile(SchedulingSettings(("lora-affinity",), ()), LimitSettings())
    has, lacks = (
        Candidate(Backend(name, "", models=models), EngineLoad())
        for name, models in (("has", ("base", "lora")), ("lacks", ("base",)))
    )
    request = view()
    request.upstream_model, request.is_adapter = "lora", True
    assert profile.schedule(request, [lacks, has], lambda: 0.0, lambda *_: None).chosen is has


def test_an_unknown_plugin_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"scheduling.scorers names 'nope'; known: cost, kv-cache, kv-usage, least-latency, "
    ):
        build_profile(SchedulingSettings(scorers=(("nope", 1.0),)), LimitSettings())
    with pytest.raises(ValueError, match="weight is -1"):
        SchedulingSettings(scorers=(("random", -1),))


@pytest.mark.parametrize(
    ("body", "text", "tokens"),
    [
        (b'{"prompt":"12345"}', "12345", 2),
        (b'{"prompt":["ab","cd"]}', "ab\ncd", 2),
        (b'{"prompt":[1,2,3]}', "", 3),
        (b'{"prompt":[[1,2],[3]]}', "", 3),
        (b'{"input":"hi","instructions":"be"}', "be\nhi", 2),
        (b'{"input":[{"role":"user","content":[{"type":"input_text","text":"hey"}]}]}', "hey", 1),
        (b'{"messages":[{"role":"user","content":"x"}]}', "<|im_start|>user\nx<|im_end|>\n", 8),
        (b'{"messages":[{"content":[{"type":"image_url"},{"type":"text","text":"y"}]}]}', "<|im_start|>user\ny<|im_end|>\n", 8),
        (b'{"messages":5}', "", 0),
    ],
)  # fmt: skip
def test_the_prompt_is_read_from_every_api(body: bytes, text: str, tokens: int) -> None:
    request = view(body=body)
    assert request.prompt_text == text
    assert request.estimated_tokens == tokens
