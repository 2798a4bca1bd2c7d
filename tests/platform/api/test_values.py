from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hekla.platform.api.quantity import parse_quantity, quantity_float
from hekla.platform.api.values import parse_duration_s, resolve_int_or_percent

SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
SMALL = {"m": 1000, "u": 10**6, "n": 10**9}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100m", "0.1"),
        ("2Gi", "2147483648"),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("1E", "1000000000000000000"),
        ("1.5", "1.5"),
        (".5", "0.5"),
        ("5.", "5"),
        ("+1", "1"),
        ("-1", "-1"),
        ("1e-3", "0.001"),
        ("0", "0"),
        (2, "2"),
        (0.5, "0.5"),
    ],
)
def test_a_quantity_is_an_exact_number(text: str | float, value: str) -> None:
    assert parse_quantity(text) == Decimal(value)


@given(st.integers(-(10**9), 10**9), st.sampled_from(sorted(SUFFIXES | BINARY)))
def test_a_suffix_multiplies(number: int, suffix: str) -> None:
    assert parse_quantity(f"{number}{suffix}") == number * (SUFFIXES | BINARY)[suffix]


@given(st.integers(0, 10**9), st.sampled_from(sorted(SMALL)))
def test_a_small_suffix_divides(number: int, suffix: str) -> None:
    assert parse_quantity(f"{number}{suffix}") * SMALL[suffix] == number


@given(st.integers(0, 10**6), st.integers(-30, 30))
def test_an_exponent_shifts(number: int, exponent: int) -> None:
    assert parse_quantity(f"{number}e{exponent}") == Decimal(number).scaleb(exponent)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "1 Gi",
        "1gi",
        "Gi",
        "1K",
        "1e",
        "1.2.3",
        "0x10",
        "1e31",
        "1e-31",
        "1e999",
        "٣",
        "NaN",
        "inf",
        "9" * 65,
        True,
    ],
)
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="allowed"):
        parse_quantity(text)


@given(st.text(max_size=12))
def test_any_text_is_a_quantity_or_refused(text: str) -> None:
    try:
        assert parse_quantity(text).is_finite()
    except ValueError as error:
        assert "allowed" in str(error)


def test_a_quantity_as_a_float() -> None:
    assert quantity_float("250m") == 0.25


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("100ms", 0.1), ("1m30s", 90), ("1h", 3600), ("1.5h", 5400), ("0", 0), ("0s", 0), ("250us", 0.00025), ("1µs", 1e-6), ("3ns", 3e-9)],
)  # fmt: skip
def test_a_duration_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "5s ", "5d", "1m 30s", "5s5", "1" * 70 + "s", "٥s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; allowed: such as 5s"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("value", "total", "up", "count"),
    [(3, 10, True, 3), (30, 10, False, 30), ("50%", 3, True, 2), ("50%", 3, False, 1), ("1%", 10, True, 1), ("1%", 10, False, 0),
     ("0%", 10, True, 0), ("100%", 7, False, 7), ("29%", 100, True, 29), ("29%", 100, False, 29), ("50%", 0, True, 0)],
)  # fmt: skip
def test_a_share_of_a_count(value: int | str, total: int, up: bool, count: int) -> None:
    assert resolve_int_or_percent(value, total, round_up=up) == count


@given(st.integers(0, 100), st.integers(0, 10**9))
def test_rounding_up_and_down_differ_by_at_most_one(percent: int, total: int) -> None:
    low = resolve_int_or_percent(f"{percent}%", total, round_up=False)
    high = resolve_int_or_percent(f"{percent}%", total, round_up=True)
    assert 0 <= low <= high <= total
    assert high - low == (1 if percent * total % 100 else 0)


@pytest.mark.parametrize("value", ["1", "%", "101%", "-1%", "1.5%", -1, True, 1.5, None])
def test_what_is_neither_count_nor_share_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="is not a count or a percentage"):
        resolve_int_or_percent(value, 10, round_up=True)
