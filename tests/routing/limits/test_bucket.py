from __future__ import annotations

import math

from hekla.routing.limits.bucket import Bucket


def test_what_was_taken_flows_back_over_the_window() -> None:
    bucket = Bucket(60, 60.0, 0.0)
    bucket.take(60, 0.0)
    assert bucket.left(0.0) == 0
    assert bucket.left(15.0) == 15
    assert bucket.left(1000.0) == 60


def test_a_debt_is_paid_before_anything_is_left() -> None:
    bucket = Bucket(60, 60.0, 0.0)
    bucket.take(90, 0.0)
    assert bucket.wait_s(10, 0.0) == 40.0
    assert bucket.left(30.0) == 0


def test_a_changed_limit_keeps_what_was_used() -> None:
    bucket = Bucket(100, 60.0, 0.0)
    bucket.take(80, 0.0)
    bucket.set_limit(200, 60.0, 0.0)
    assert bucket.left(0.0) == 120
    bucket.set_limit(50, 3600.0, 0.0)
    assert bucket.left(0.0) == -30


def test_time_before_a_change_flows_back_at_the_old_rate() -> None:
    bucket = Bucket(60, 60.0, 0.0)
    bucket.take(60, 0.0)
    bucket.set_limit(60, 3600.0, 30.0)
    assert bucket.left(30.0) == 30


def test_more_than_the_whole_limit_never_fits() -> None:
    assert Bucket(5, 60.0, 0.0).wait_s(9, 0.0) == math.inf


def test_giving_back_more_than_was_taken_does_not_raise_the_limit() -> None:
    bucket = Bucket(10, 60.0, 0.0)
    bucket.take(-5, 0.0)
    assert bucket.left(0.0) == 10


def test_a_clock_that_stands_still_gives_nothing_back() -> None:
    bucket = Bucket(10, 1.0, 5.0)
    bucket.take(10, 5.0)
    assert bucket.left(4.0) == 0
