"""The life of an engine, decided in pure code."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hekla.deployments.engines.lifecycle import (
    ENDED,
    FETCH_ATTEMPTS_MAX,
    LEGAL,
    Alive,
    Broken,
    Do,
    DrainAsked,
    Event,
    Exited,
    FetchFailed,
    Fetching,
    Healthy,
    Limits,
    Loaded,
    Spawned,
    State,
    StopAsked,
    Unhealthy,
    advance,
)
from hekla.platform.api.kinds.engine import Phase

LIMITS = Limits(startup_timeout_s=60.0, health_failures_max=3)
SPAWNED = Spawned(42, "http://127.0.0.1:1")
EVENTS: list[Event] = [
    Fetching(0.5), SPAWNED, Loaded(0.3, "loading weights"), Healthy(("m",), 128), Unhealthy("503"),
    FetchFailed("no network"), Alive(), Exited("exited with code 1"), Broken("no disk"), DrainAsked(), StopAsked(),
]  # fmt: skip


def lived(*events: Event, now: float = 0.0) -> tuple[State, list[Do]]:
    state, todo = State(LIMITS), list[Do]()
    for event in events:
        state, more = advance(state, event, now)
        todo += more
    return state, todo


def test_a_good_life_runs_from_fetching_to_stopped() -> None:
    phases = []
    state = State(LIMITS)
    for event in (Fetching(0.5), SPAWNED, Healthy(("m",), 128), DrainAsked(), Exited("exited with code 0")):
        state, _ = advance(state, event, 0.0)
        phases.append(state.phase)
    assert phases == ["Fetching", "Loading", "Ready", "Draining", "Stopped"]
    assert (state.models, state.max_model_len, state.pid) == (("m",), 128, 42)


def test_probes_may_fail_until_the_start_up_time_is_over() -> None:
    state, _ = lived(SPAWNED)
    state, todo = advance(state, Unhealthy("refused"), 59.9)
    assert (state.phase, todo) == ("Loading", ())
    state, todo = advance(state, Unhealthy("refused"), 60.0)
    assert (state.phase, todo) == ("Failed", (Do.KILL,))
    assert state.message == "not healthy 60 s after its start: refused"


def test_the_start_up_time_counts_from_the_process_not_from_the_fetch() -> None:
    state, _ = lived(Fetching(0.1))
    state, _ = advance(state, SPAWNED, 1000.0)
    assert advance(state, Unhealthy("refused"), 1059.0)[0].phase == "Loading"


def test_only_probes_that_fail_in_a_row_fail_the_engine() -> None:
    ready = (SPAWNED, Healthy(("m",)))
    bad = Unhealthy("503")
    assert lived(*ready, bad, bad, Healthy(("m",)), bad, bad)[0].phase == "Ready"
    state, todo = lived(*ready, bad, bad, bad)
    assert (state.phase, todo) == ("Failed", [Do.KILL])
    assert state.message == "3 health probes failed in a row: 503"


def test_a_probe_that_succeeds_clears_the_warning() -> None:
    warned, _ = lived(SPAWNED, Healthy(("m",)), Unhealthy("503"))
    assert warned.message == "health probe failed 1 of 3 times: 503"
    assert advance(warned, Healthy(("m",)), 0.0)[0].message == ""


def test_a_process_that_ends_by_itself_has_failed_and_one_that_drains_has_stopped() -> None:
    assert lived(SPAWNED, Healthy(("m",)), Exited("exited with code 1"))[0].message == "exited with code 1"
    assert lived(SPAWNED, Healthy(("m",)), DrainAsked(), Exited("exited with code 1"))[0].phase == "Stopped"


def test_loading_progress_never_goes_back() -> None:
    state, _ = lived(SPAWNED, Loaded(0.6, "warming up"), Loaded(0.2, "loading weights"))
    assert (state.progress, state.message) == (0.6, "warming up")


def test_draining_what_was_never_ready_stops_it_at_once() -> None:
    for before in ((), (Fetching(0.5),), (SPAWNED,)):
        state, todo = lived(*before, DrainAsked())
        assert (state.phase, todo) == ("Stopped", [Do.KILL])


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_no_event_brings_a_stopped_engine_back(event: Event) -> None:
    stopped, _ = lived(SPAWNED, StopAsked())
    assert advance(stopped, event, 1e9) == (stopped, ())


@given(st.lists(st.sampled_from(EVENTS), max_size=12))
def test_every_order_of_events_is_legal_and_ends_are_final(events: list[Event]) -> None:
    state = State(LIMITS)
    for event, now in zip(events, itertools.count()):
        after, todo = advance(state, event, float(now))
        assert after.phase == state.phase or after.phase in LEGAL[state.phase]
        assert state.phase not in ENDED or after.phase in (state.phase, "Stopped")
        assert Do.KILL not in todo or after.phase in ENDED
        state = after


def test_the_table_names_every_phase_after_pending() -> None:
    assert set(LEGAL) == set(get_args(Phase)) - {"Pending"}


def test_a_fetch_that_may_work_later_is_tried_again_with_growing_pauses_and_fails_in_the_end() -> None:
    state, pauses = State(LIMITS), []
    for _ in range(FETCH_ATTEMPTS_MAX - 1):
        state, todo = advance(state, FetchFailed("no network", 5.0), 0.0)
        assert (state.phase, todo) == ("Fetching", ())
        pauses.append(state.fetch_again_in_s)
    assert pauses == [15, 30, 60, 120, 240]
    assert state.message == "no network; attempt 6 of 6 in 240 s"
    state, todo = advance(state, FetchFailed("no network"), 0.0)
    assert (state.phase, state.message, todo) == ("Failed", "no network (6 attempts)", (Do.KILL,))


def test_a_source_that_asks_for_a_longer_pause_gets_it_up_to_a_limit() -> None:
    assert lived(FetchFailed("busy", 40.0))[0].fetch_again_in_s == 40
    assert lived(FetchFailed("busy", 1e6))[0].fetch_again_in_s == 300


def test_a_worker_is_ready_when_it_has_its_weights_or_has_lived_long_enough() -> None:
    born, _ = advance(State(Limits(60.0, 3, settled_s=20.0)), SPAWNED, 100.0)
    assert advance(born, Alive(), 119.9)[0].phase == "Loading"
    assert advance(born, Alive(), 120.0)[0].phase == "Ready"
    half, _ = advance(born, Loaded(0.2, "loading weights"), 101.0)
    assert advance(half, Alive(), 101.0)[0].phase == "Loading"
    loaded, _ = advance(half, Loaded(0.5, "weights loaded"), 101.0)
    assert advance(loaded, Alive(), 101.0)[0].phase == "Ready"
