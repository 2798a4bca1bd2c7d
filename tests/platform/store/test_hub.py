"""The watch hub with a short memory."""

from __future__ import annotations

import pytest

from hekla.platform.base.errors import Gone
from hekla.platform.store.hub import Hub
from hekla.platform.store.table import Change, ChangeType


def change(version: int, type: ChangeType, uid: str) -> Change:
    return Change(version, type, "Model", uid, "{}")


def test_an_end_is_remembered_as_long_as_the_history_holds_it_and_no_shorter() -> None:
    hub = Hub(history_max=2)
    hub.publish([change(1, "ADDED", "a"), change(2, "DELETED", "a"), change(3, "ADDED", "b")])
    assert hub.was_deleted("a")
    hub.publish([change(4, "MODIFIED", "b")])
    assert not hub.was_deleted("a")
    assert not hub.was_deleted("b")


def test_a_hub_made_from_a_history_goes_on_where_it_ended() -> None:
    hub = Hub([change(7, "ADDED", "a"), change(8, "DELETED", "a")])
    assert hub.version == 8
    assert hub.was_deleted("a")
    assert hub.watch((), "6").pending == 2
    with pytest.raises(Gone, match="6 to 8"):
        hub.watch((), "5")


def test_a_gap_in_the_versions_is_noticed() -> None:
    hub = Hub()
    with pytest.raises(AssertionError, match="version 2 follows 0"):
        hub.publish([change(2, "ADDED", "a")])


def test_a_watch_nobody_holds_any_more_is_forgotten() -> None:
    hub = Hub()
    watch = hub.watch((), None)
    assert "watchers=1" in repr(hub)
    del watch
    assert "watchers=0" in repr(hub)
