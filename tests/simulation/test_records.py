from __future__ import annotations

import pytest

from hekla.simulation.intervals import bootstrap, paired_gain
from hekla.simulation.records import Objective, Record, jain, percentile, service_gap, summarise


def record(number: int, arrived: float, first: float, end: float, *, tokens: int = 11, tenant: str = "") -> Record:
    return Record(number, tenant, arrived, 100, tokens, first_s=first, finished_s=end)


def test_times_and_rates_are_those_of_the_requests() -> None:
    rows = [record(1, 0.0, 1.0, 2.0), record(2, 1.0, 4.0, 5.0), record(3, 2.0, -1, -1)]
    rows[2].refused = "refused"
    found = summarise(rows, Objective(ttft_s=2.0, tpot_s=0.2))
    assert (found.requests, found.served, found.refused, found.errors) == (3, 2, 1, 0)
    assert found.ttft_mean_s == 2.0 and found.ttft_p50_s == 2.0
    assert found.tpot_mean_s == pytest.approx(0.1)
    assert found.throughput == pytest.approx(2 / 5) and found.output_tokens_s == pytest.approx(22 / 5)
    assert found.goodput == pytest.approx(1 / 3) and found.good_per_s == pytest.approx(1 / 2)


def test_a_lost_request_is_an_error_not_a_refusal() -> None:
    assert summarise([record(1, 0.0, -1, -1)], Objective()).errors == 1


def test_nothing_is_summed_up_as_nothing() -> None:
    found = summarise([], Objective())
    assert found.requests == 0 and found.ttft_p99_s == 0.0


def test_an_answer_of_one_token_has_no_time_between_tokens() -> None:
    assert record(1, 0.0, 1.0, 1.0, tokens=1).tpot_s == 0.0


def test_jain_is_one_for_equals_and_one_nth_for_a_monopoly() -> None:
    assert jain([3.0, 3.0, 3.0]) == pytest.approx(1.0)
    assert jain([5.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert jain([0.0, 0.0]) == 1.0


def test_the_service_gap_is_the_worst_difference_at_any_time() -> None:
    rows = [record(i, 0.0, 1.0, float(i), tenant="a" if i < 3 else "b") for i in range(1, 5)]
    assert service_gap(rows, ("a", "b")) == 2 * (100 + 2 * 11)


def test_percentiles_interpolate() -> None:
    assert percentile([1.0, 2.0], 50) == 1.5
    assert percentile([], 99) == 0.0


def test_an_interval_holds_the_mean_and_shrinks_to_it_without_spread() -> None:
    found = bootstrap([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.low < found.mean == 3.0 < found.high
    assert bootstrap([2.0, 2.0]) == (2.0, 2.0, 2.0)
    assert bootstrap([1.0, 5.0, 2.0]) == bootstrap([1.0, 5.0, 2.0]), "the same numbers give the same interval"
    with pytest.raises(ValueError, match="no values"):
        bootstrap([])


def test_a_gain_is_a_share_of_the_other_and_its_sign_says_who_is_better() -> None:
    assert paired_gain([8.0, 8.0], [10.0, 10.0], lower_is_better=True).mean == pytest.approx(0.2)
    assert paired_gain([8.0, 8.0], [10.0, 10.0], lower_is_better=False).mean == pytest.approx(-0.2)
    assert paired_gain([0.0], [0.0], lower_is_better=True).mean == 0.0
    with pytest.raises(ValueError, match="can't be paired"):
        paired_gain([1.0], [1.0, 2.0], lower_is_better=True)
