from __future__ import annotations

import pytest

from hekla.platform.api.registry import Column
from hekla.platform.base.clock import parse_rfc3339
from hekla.platform.base.errors import BadRequest
from hekla.platform.cli.options import seconds_of
from hekla.platform.cli.tables import age, aligned, cell


@pytest.mark.parametrize(
    ("ago_s", "shown"),
    [(0, "0s"), (59, "59s"), (61, "1m1s"), (3600, "1h"), (90_000, "1d1h"), (86_460, "1d"), (-5, "0s")],
)
def test_an_age_has_the_two_largest_units(ago_s: int, shown: str) -> None:
    since = "2026-01-01T00:00:00Z"
    assert age(since, parse_rfc3339(since) + ago_s) == shown


def test_an_age_of_nothing_is_a_dash() -> None:
    assert age("") == "-"


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert aligned([["A", "B"], ["long", "x"]]) == ["A      B", "long   x"]


def test_a_cell_without_a_value_is_a_dash_and_zero_is_a_value() -> None:
    obj = {"status": {"replicas": 0, "text": "a\nb"}}
    assert cell(obj, Column("X", "status.nothing.there")) == "-"
    assert cell(obj, Column("X", "status.replicas")) == "0"
    assert cell(obj, Column("X", "status.text")) == "a b"
    assert cell(obj, Column("X", lambda _: "")) == "-"


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1.5s", 1.5), ("10m", 600), ("1h", 3600)])
def test_durations_have_units(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-1", "1d", "1h30m", "1e9999"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        seconds_of(text)
