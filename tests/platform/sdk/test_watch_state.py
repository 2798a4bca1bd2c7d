"""The client's watch as a state machine, fed line by line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hekla.platform.base.errors import Forbidden
from hekla.platform.sdk.watching import INITIAL_END, RECONNECT_DELAY_S_MAX, WATCH_REQUEST_S_MAX, WatchState


def line(kind: str, name: str, version: int) -> str:
    meta = {"name": name, "namespace": "default", "resourceVersion": str(version)}
    return json.dumps({"type": kind, "object": {"kind": "ModelServing", "metadata": meta}})


def end(version: int) -> str:
    meta = {"resourceVersion": str(version), "annotations": {INITIAL_END: "true"}}
    return json.dumps({"type": "BOOKMARK", "object": {"metadata": meta}})


def bookmark(version: int) -> str:
    return json.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(version)}}})


def failure(code: int, reason: str) -> str:
    return json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": code, "reason": reason, "message": "no"}})


def fed(state: WatchState, *lines: str) -> list[tuple[str, str]]:
    return [(change.type, change.object["metadata"]["name"]) for text in lines for change in state.feed(text)]


@pytest.fixture
def state() -> WatchState:
    watching = WatchState("/path", {})
    watching.next_call()
    return watching


def test_the_first_call_asks_for_what_there_is_the_next_for_what_came_after(state: WatchState) -> None:
    assert WatchState("/path", {}).next_call().params["sendInitialEvents"] == "true"
    assert fed(state, line("ADDED", "a", 3), end(7)) == [("ADDED", "a")]
    call = state.next_call()
    assert (call.params["resourceVersion"], "sendInitialEvents" in call.params) == ("7", False)


def test_bookmarks_move_the_version_and_bring_nothing(state: WatchState) -> None:
    assert fed(state, end(1), bookmark(50)) == []
    assert state.next_call().params["resourceVersion"] == "50"


def test_a_connection_lost_before_the_first_listing_ended_starts_anew(state: WatchState) -> None:
    fed(state, line("ADDED", "a", 3))
    assert not state.is_caught_up
    assert "resourceVersion" not in state.next_call().params
    assert fed(state, line("ADDED", "a", 3), line("ADDED", "b", 4), end(4)) == [("ADDED", "b")]
    assert state.is_caught_up


def test_after_gone_only_the_difference_is_told(state: WatchState) -> None:
    fed(state, line("ADDED", "same", 1), line("ADDED", "changes", 2), line("ADDED", "goes", 3), end(3))
    assert fed(state, failure(410, "Expired")) == []
    assert not state.is_caught_up
    assert "sendInitialEvents" in state.next_call().params
    again = (line("ADDED", "same", 1), line("ADDED", "changes", 9), line("ADDED", "new", 8), end(9))
    assert fed(state, *again) == [("MODIFIED", "changes"), ("ADDED", "new"), ("DELETED", "goes")]


def test_a_deletion_of_what_was_never_seen_is_not_told(state: WatchState) -> None:
    assert fed(state, end(1), line("DELETED", "stranger", 2)) == []


def test_another_error_than_gone_is_raised(state: WatchState) -> None:
    with pytest.raises(Forbidden):
        state.feed(failure(403, "Forbidden"))


def test_connections_that_bring_nothing_are_tried_ever_more_slowly(state: WatchState) -> None:
    delays = [state.ended() for _ in range(12)]
    assert delays == sorted(delays)
    assert delays[-1] == RECONNECT_DELAY_S_MAX
    state.feed(end(1))
    assert state.ended() == 0.0
    assert state.ended() == delays[0]


def test_the_server_is_asked_to_end_when_the_time_is_up(state: WatchState) -> None:
    def seconds(left_s: float) -> Any:
        return state.next_call(left_s).params["timeoutSeconds"]

    assert (seconds(2.5), seconds(0.0)) == ("3", "1")
    assert seconds(10**9) == str(WATCH_REQUEST_S_MAX)
