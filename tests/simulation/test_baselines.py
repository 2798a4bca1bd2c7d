"""Each baseline's rule, on a hand-made state."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest

from hekla.routing.backend import Backend
from hekla.routing.load import Counts, LoadBook
from hekla.routing.scheduling.candidates import Candidates, Pool
from hekla.routing.scheduling.interface import Candidate, RequestView, Scorer
from hekla.simulation.baselines.aibrix_like import AibrixLike
from hekla.simulation.baselines.consistent_hash import ConsistentHash
from hekla.simulation.baselines.dynamo_like import DynamoLike
from hekla.simulation.baselines.kthena_like import KthenaLike
from hekla.simulation.baselines.llm_d_sticky import LlmdSticky
from hekla.simulation.baselines.pinned import Pinned
from hekla.simulation.baselines.ray_like import RayLike
from hekla.simulation.baselines.round_robin import RoundRobin
from hekla.simulation.baselines.sglang_like import SglangLike
from hekla.simulation.request import SimRequest
from hekla.simulation.view import SimView


class Told:
    """Prefix knowledge that is given."""

    def __init__(self, *tokens: int) -> None:
        self._tokens = tokens

    def matched_tokens(self, request: RequestView, candidates: Sequence[Candidate]) -> Sequence[int]:
        return self._tokens

    def routed(self, request: RequestView, engine: str, now_s: float) -> None: ...

    def finished(self, request: RequestView, engine: str, now_s: float, *, succeeded: bool) -> None: ...

    def forget(self, engine: str) -> None: ...


def chosen(
    scorer: Scorer, loads: Sequence[Counts], *, tokens: int = 1000, group: int = -1, number: int = 1
) -> set[int]:
    """The positions that share the best score."""
    book = LoadBook()
    for i, counts in enumerate(loads):
        book.add(f"e{i}", counts)
    pool = Pool.of([Backend(f"e{i}", f"sim://e{i}") for i in range(len(loads))], book)
    view = SimView(SimRequest(number, 0.0, tokens, 10, (number,), group=group), 64, Random(1).random, tokenised=True)
    scores = np.asarray(scorer.score(view, Candidates(pool)))
    assert scores.min() >= 0 and scores.max() <= 1
    return set(np.flatnonzero(scores == scores.max()).tolist())


def busy(*requests: int) -> list[Counts]:
    return [Counts(count, 0, count, 0, 0) for count in requests]


def test_sglang_follows_a_match_above_three_tenths_until_queues_differ_by_64_and_half() -> None:
    assert chosen(SglangLike(Told(0, 400, 0)), busy(1, 50, 2)) == {1}
    assert chosen(SglangLike(Told(0, 200, 0)), busy(1, 50, 2)) == {0}
    assert chosen(SglangLike(Told(0, 400, 0)), busy(1, 66, 2)) == {0}


def test_aibrix_follows_the_best_match_among_calm_engines_while_they_differ_by_at_most_8() -> None:
    assert chosen(AibrixLike(Told(10, 0, 900)), busy(4, 4, 6)) == {0}, "the best match is above mean + deviation"
    assert chosen(AibrixLike(Told(10, 0, 900)), busy(4, 4, 4)) == {2}
    assert chosen(AibrixLike(Told(0, 0, 900)), busy(1, 2, 10)) == {0}


def test_ray_follows_a_tenth_until_queues_differ_by_more_than_10() -> None:
    assert chosen(RayLike(Told(0, 100, 0)), busy(0, 10, 3)) == {1}
    assert chosen(RayLike(Told(0, 99, 0)), busy(0, 10, 3)) == {0}
    assert 1 not in chosen(RayLike(Told(0, 900, 0)), busy(0, 11, 0)), "the better of two, never the longest of three"


def test_llm_d_sticks_until_the_others_are_18_seconds_ahead() -> None:
    near = [Counts(1, 17 * 15_928, 0, 0, 0), Counts()]
    far = [Counts(1, 19 * 15_928, 0, 0, 0), Counts()]
    assert chosen(LlmdSticky(Told(800, 0)), near) == {0}
    assert chosen(LlmdSticky(Told(800, 0)), far) == {1}
    assert chosen(LlmdSticky(Told(790, 0)), near) == {1}


def test_dynamo_adds_blocks_to_compute_and_blocks_that_decode() -> None:
    loads = [Counts(1, 0, 1, 5000, 5000), Counts(1, 3000, 0, 1000, 1000)]
    assert chosen(DynamoLike(Told(0, 0)), loads) == {1}
    assert chosen(DynamoLike(Told(900, 0)), loads) == {0}


def test_kthena_weighs_the_polled_queue_and_the_match_alike_and_knows_nothing_of_work_in_flight() -> None:
    assert chosen(KthenaLike(Told(0, 0)), busy(9, 0)) == {0, 1}
    assert chosen(KthenaLike(Told(500, 0)), busy(9, 0)) == {0}


def test_round_robin_takes_one_after_the_other() -> None:
    scorer = RoundRobin()
    assert [chosen(scorer, busy(0, 0, 0)) for _ in range(4)] == [{0}, {1}, {2}, {0}]


def test_a_hash_sends_the_same_prefix_to_the_same_engine_and_spreads_others() -> None:
    homes = [chosen(ConsistentHash(), busy(0, 0, 0, 0), number=number) for number in (1, 1, *range(2, 40))]
    assert homes[0] == homes[1]
    assert {position for home in homes for position in home} == {0, 1, 2, 3}


@pytest.mark.parametrize("group", [0, 1, 5])
def test_the_static_oracle_sends_a_group_to_its_home(group: int) -> None:
    assert chosen(Pinned(lambda number: number % 2), busy(9, 0), group=group) == {group % 2}
