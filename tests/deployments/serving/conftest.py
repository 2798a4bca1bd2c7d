"""A small language for ModelServings."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from hekla.deployments.serving.rehearsal import Rehearsal
from hekla.platform.api.admission import admit
from hekla.platform.api.meta import Json


def template(image: str) -> Json:
    container = {
        "name": "engine",
        "image": image,
        "args": ["--model", "/models/m"],
        "resources": {"requests": {"cpu": "1"}},
    }
    return {"metadata": {"annotations": {"hekla.io/engine": "simulated"}}, "spec": {"containers": [container]}}


def role(name: str = "server", replicas: int = 1, workers: int = 0, image: str = "v1", **more: Any) -> Json:
    made: Json = {
        "name": name,
        "replicas": replicas,
        "workerReplicas": workers,
        "entryTemplate": template(image),
        **more,
    }
    if workers:
        made["workerTemplate"] = template(image)
    return made


def serving(replicas: int = 1, roles: list[Json] | None = None, *, template: Json | None = None, **spec: Any) -> Json:
    obj: Json = {
        "apiVersion": "workload.serving.volcano.sh/v1alpha1",
        "kind": "ModelServing",
        "metadata": {"name": "llm"},
        "spec": {"replicas": replicas, "template": {**(template or {}), "roles": roles or [role()]}, **spec},
    }
    return admit(obj)


def stored(obj: Json) -> Json:
    """As the store would hand it out."""
    made = copy.deepcopy(obj)
    made["metadata"] |= {"uid": "serving-uid", "generation": 1}
    return made


@pytest.fixture(name="role")
def role_fixture() -> Callable[..., Json]:
    return role


@pytest.fixture(name="serving")
def serving_fixture() -> Callable[..., Json]:
    return serving


@pytest.fixture
def rehearse() -> Callable[..., Rehearsal]:
    """A serving whose engines all run."""

    def build(*args: Any, **kwargs: Any) -> Rehearsal:
        rehearsal = Rehearsal(stored(serving(*args, **kwargs)))
        rehearsal.settle()
        return rehearsal

    return build


@pytest.fixture(scope="session")
def rehearse_any() -> Callable[..., Rehearsal]:
    """For property tests: one role of two replicas, everything else drawn."""

    def build(replicas: int, budget: int, policy: str, image: str) -> Rehearsal:
        rolling = {"rollingUpdateConfiguration": {"maxUnavailable": budget}}
        obj = serving(replicas, [role(replicas=2, image=image)], rolloutStrategy=rolling, recoveryPolicy=policy)
        rehearsal = Rehearsal(stored(obj))
        rehearsal.settle()
        return rehearsal

    return build
