"""Readiness and progress, decided from objects alone."""

from __future__ import annotations

from typing import Any

import pytest

from hekla.platform.api.meta import Json
from hekla.platform.base.errors import NotFound
from hekla.platform.sdk.waiting import Wait, descendants, engine_step, readiness
from hekla.platform.sdk.watching import Change


def booster(*, status: str = "", generation: int = 1, observed: int | None = None, message: str = "") -> Json:
    condition = {"type": "Active", "status": status, "reason": "Why", "message": message}
    found: Json = {"conditions": [condition] if status else []}
    if observed is not None:
        found["observedGeneration"] = observed
    meta = {"name": "b", "namespace": "default", "uid": "ub", "generation": generation}
    return {"kind": "ModelBooster", "metadata": meta, "status": found}


def child(kind: str, name: str, uid: str, owner: str, status: Json | None = None) -> Json:
    meta = {"name": name, "namespace": "default", "uid": uid, "ownerReferences": [{"uid": owner}]}
    return {"kind": kind, "metadata": meta, "status": status or {}}


@pytest.mark.parametrize(
    ("obj", "ready", "words"),
    [
        (booster(), False, "no Active condition yet"),
        (booster(status="True"), True, "Why"),
        (booster(status="False", message="two of three"), False, "two of three"),
        (booster(status="Unknown"), False, "Why"),
        (booster(status="True", generation=2, observed=1), False, "Why"),
        (booster(status="True", generation=2, observed=2), True, "Why"),
        ({"kind": "ModelRoute", "metadata": {}}, True, ""),
    ],
)
def test_readiness_is_the_ready_condition_of_the_current_generation(obj: Json, ready: bool, words: str) -> None:
    found, said = readiness(obj)
    assert (found, words in said) == (ready, True)


@pytest.mark.parametrize(
    ("status", "step"),
    [
        ({}, "Pending"),
        ({"phase": "Fetching", "progress": 0.4}, "Fetching 40%"),
        ({"phase": "Loading", "progress": 0.0}, "Loading"),
        ({"phase": "Ready", "progress": 0.5}, "Ready"),
        ({"phase": "Failed", "message": "no such model"}, "Failed (no such model)"),
    ],
)
def test_an_engines_step_is_its_phase_and_how_far_it_is(status: Any, step: str) -> None:
    assert engine_step({"metadata": {"name": "e"}, "status": status}) == step


def test_descendants_follow_ownership_through_the_generations() -> None:
    serving, engine = child("ModelServing", "s", "us", "ub"), child("Engine", "e", "ue", "us")
    stranger = child("Engine", "x", "ux", "other")
    assert descendants(booster(), [engine, stranger, serving]) == [serving, engine]


def test_a_shortage_below_the_object_is_the_message() -> None:
    wait = Wait("ModelBooster", "default", "b")
    short = {"conditions": [{"type": "Schedulable", "status": "False", "message": "short of GPU on n1"}]}
    wait.feed([Change("ADDED", booster()), Change("ADDED", child("ModelServing", "s", "us", "ub", short))])
    assert wait.outcome() is None
    assert "short of GPU on n1" in str(wait.timed_out(5))


def test_a_late_wait_names_the_engines_steps() -> None:
    wait = Wait("ModelBooster", "default", "b")
    wait.feed([Change("ADDED", booster()), Change("ADDED", child("ModelServing", "s", "us", "ub"))])
    wait.feed([Change("ADDED", child("Engine", "e", "ue", "us", {"phase": "Loading"}))])
    assert "e: Loading" in str(wait.timed_out(5))


def test_a_wait_for_deletion_lasts_as_long_as_anything_owned_is_there() -> None:
    wait = Wait("ModelBooster", "default", "b", gone=True, uid="ub")
    serving = child("ModelServing", "s", "us", "ub")
    wait.feed([Change("ADDED", serving)])
    assert wait.outcome() is None
    assert "ModelServing default/s" in str(wait.timed_out(5))
    wait.feed([Change("DELETED", serving)])
    assert wait.outcome() == {}


def test_a_wait_for_what_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFound):
        Wait("ModelBooster", "default", "b").outcome()
