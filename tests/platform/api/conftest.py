"""Small valid manifests, and a way to break them one field at a time."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from hekla.platform.api.admission import admit
from hekla.platform.api.meta import Json
from hekla.platform.base.errors import Invalid

WORKLOAD = "workload.serving.volcano.sh/v1alpha1"
NETWORKING = "networking.serving.volcano.sh/v1alpha1"

POD: Json = {"metadata": {"labels": {"app": "chat"}}, "spec": {"containers": [{"name": "engine", "image": "vllm:1"}]}}

MANIFESTS: dict[str, Json] = {
    "booster": {
        "apiVersion": WORKLOAD,
        "kind": "ModelBooster",
        "metadata": {"name": "chat"},
        "spec": {
            "backend": {
                "name": "main",
                "type": "vLLM",
                "modelURI": "hf://org/model",
                "replicas": 1,
                "workers": [{"type": "server", "image": "vllm:1", "replicas": 1, "pods": 1}],
            }
        },
    },
    "pair": {
        "apiVersion": WORKLOAD,
        "kind": "ModelBooster",
        "metadata": {"name": "chat"},
        "spec": {
            "backend": {
                "name": "main",
                "type": "vLLMDisaggregated",
                "modelURI": "hf://org/model",
                "replicas": 1,
                "workers": [
                    {
                        "type": "prefill",
                        "config": {"kv-transfer-config": '{"kv_connector": "NixlConnector", "kv_role": "kv_producer"}'},
                    },
                    {
                        "type": "decode",
                        "config": {"kv-transfer-config": '{"kv_connector": "NixlConnector", "kv_role": "kv_consumer"}'},
                    },
                ],
            }
        },
    },
    "serving": {
        "apiVersion": WORKLOAD,
        "kind": "ModelServing",
        "metadata": {"name": "chat"},
        "spec": {
            "replicas": 2,
            "template": {
                "roles": [
                    {"name": "prefill", "replicas": 2, "entryTemplate": POD, "workerReplicas": 0},
                    {
                        "name": "decode",
                        "replicas": 4,
                        "entryTemplate": POD,
                        "workerReplicas": 1,
                        "workerTemplate": POD,
                    },
                ]
            },
        },
    },
    "server": {
        "apiVersion": NETWORKING,
        "kind": "ModelServer",
        "metadata": {"name": "chat"},
        "spec": {
            "inferenceEngine": "vLLM",
            "workloadSelector": {"matchLabels": {"app": "chat"}},
            "workloadPort": {"port": 8000},
        },
    },
    "route": {
        "apiVersion": NETWORKING,
        "kind": "ModelRoute",
        "metadata": {"name": "chat"},
        "spec": {"modelName": "chat", "rules": [{"name": "all", "targetModels": [{"modelServerName": "chat"}]}]},
    },
}

MISSING = "<missing>"


def steps_of(path: str) -> list[str | int]:
    return [int(step[1:-1]) if step[0] == "[" else step for step in re.findall(r"\[\d+\]|[^.\[\]]+", path)]


@pytest.fixture
def manifest() -> Callable[..., Json]:
    """`manifest("route", {"spec.modelName": None})`: a valid manifest with some fields set, or taken away by MISSING."""

    def made(name: str, changes: dict[str, Any] | None = None) -> Json:
        obj: Json = json.loads(json.dumps(MANIFESTS[name]))  # not deepcopy: the templates must not be shared
        for path, value in (changes or {}).items():
            *parents, last = steps_of(path)
            place: Any = obj
            for step in parents:
                place = place.setdefault(step, {}) if isinstance(step, str) else place[step]
            if value == MISSING:
                del place[last]
            elif isinstance(place, list) and last == len(place):
                place.append(value)
            else:
                place[last] = copy.deepcopy(value)
        return obj

    return made


@pytest.fixture
def problems() -> Callable[..., dict[str, str]]:
    """What admission says of an object: problem by path; empty when it is admitted."""

    def found(obj: Any, old: Json | None = None) -> dict[str, str]:
        try:
            admit(obj, old)
        except Invalid as refused:
            return {cause.path: cause.problem for cause in refused.causes}
        return {}

    return found
