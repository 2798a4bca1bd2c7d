"""A small language for ModelBoosters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hekla.platform.api.admission import admit
from hekla.platform.api.meta import Json

NIXL = '{"kv_connector": "NixlConnector", "kv_role": "kv_both"}'


def worker(kind: str = "server", **fields: Any) -> Json:
    return {"type": kind, "resources": {"requests": {"cpu": "1"}}, **fields}


def booster(
    kind: str = "vLLM", workers: list[Json] | None = None, *, model: str | None = "chat", **backend: Any
) -> Json:
    spec: Json = {
        "backend": {
            "name": "main",
            "type": kind,
            "modelURI": "hf://org/model",
            "replicas": 1,
            "workers": workers or [worker()],
            **backend,
        }
    }
    if model:
        spec["name"] = model
    obj: Json = {
        "apiVersion": "workload.serving.volcano.sh/v1alpha1",
        "kind": "ModelBooster",
        "metadata": {"name": "demo"},
        "spec": spec,
    }
    return admit(obj)


def pair(**prefill: Any) -> list[Json]:
    config = {"kv-transfer-config": NIXL}
    return [worker("prefill", config=config, **prefill), worker("decode", config=config)]


@pytest.fixture(name="booster")
def booster_fixture() -> Callable[..., Json]:
    return booster


@pytest.fixture(name="worker")
def worker_fixture() -> Callable[..., Json]:
    return worker


@pytest.fixture(name="pair")
def pair_fixture() -> Callable[..., list[Json]]:
    return pair
