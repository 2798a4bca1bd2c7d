from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hekla.platform.api.podspec import pod_spec_problems, type_problems
from hekla.platform.api.podtemplate import engine_container

ROOT = Path(__file__).resolve().parents[3]


def test_the_field_table_is_what_the_script_makes() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "generate-podspec"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def container(**fields: Any) -> dict[str, Any]:
    return {"containers": [{"name": "engine", **fields}]}


ACCEPTED: list[dict[str, Any]] = [
    container(image="registry.example/vllm:1@sha256:abc", command=["python3"], args=["-m", "vllm"]),
    container(resources={"limits": {"nvidia.com/gpu": 1, "memory": "16Gi"}, "requests": {"cpu": 0.5}}),
    container(ports=[{"containerPort": 8000, "name": "http", "protocol": "TCP"}]),
    container(
        env=[{"name": "A", "value": ""}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    ),
    container(readinessProbe={"httpGet": {"path": "/health", "port": "http"}, "initialDelaySeconds": 180}),
    container(livenessProbe={"tcpSocket": {"port": 8000}}),
    container(readinessProbe={"exec": {"command": ["true"]}}),
    container(lifecycle={"preStop": {"exec": {"command": ["sh", "-c", "sleep 5"]}}}),
    container(volumeMounts=[{"name": "shm", "mountPath": "/dev/shm"}], securityContext={"privileged": False}),
    {**container(), "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]},
    {**container(), "nodeSelector": {"gpu": "h100"}, "terminationGracePeriodSeconds": 300, "hostNetwork": True},
    {**container(), "initContainers": [{"name": "download", "image": "x"}], "imagePullSecrets": [{"name": "s"}]},
    {
        **container(),
        "tolerations": [{"operator": "Exists", "tolerationSeconds": 60}],
        "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}},
    },
    container(stdin=None),
]


@pytest.mark.parametrize("spec", ACCEPTED, ids=str)
def test_a_pod_spec_that_kubernetes_takes_is_accepted(spec: dict[str, Any]) -> None:
    assert pod_spec_problems(spec, "spec") == []


ENGINE = "spec.containers[0]"

REFUSED: list[tuple[Any, str, str]] = [
    ([], "spec", "must be an object, got []"),
    ({}, "spec.containers", "required"),
    ({"containers": []}, "spec.containers", "has no entries; allowed: 1 or more"),
    ({"containers": {"name": "x"}}, "spec.containers", "must be a list"),
    ({"containers": ["x"]}, ENGINE, 'must be an object, got "x"'),
    ({"containers": [{"image": "x"}]}, f"{ENGINE}.name", "required"),
    ({"containers": [{"name": "x"}] * 65}, "spec.containers", "has 65 entries; allowed: at most 64"),
    ({"containers": [{"name": "x"}, {"name": "x"}]}, "spec.containers[1].name", '"x" is used 2 times'),
    ({"containers": [{"name": "My_engine"}]}, f"{ENGINE}.name", "is not a valid name"),
    ({**container(), "initContainers": [{"name": "a", "image": "x y"}]}, "spec.initContainers[0].image", "holds whitespace"),
    ({**container(), "tolerationz": []}, "spec.tolerationz", 'unknown field; did you mean "tolerations"? allowed: '),
    (container(image="x\ty"), f"{ENGINE}.image", "holds whitespace; allowed: an image reference"),
    (container(image=5), f"{ENGINE}.image", "must be text, got 5"),
    (container(imag="x"), f"{ENGINE}.imag", 'did you mean "image"?'),
    (container(command="python3"), f"{ENGINE}.command", 'must be a list, got "python3"'),
    (container(args=["--port", 8000]), f"{ENGINE}.args[1]", 'must be text, got 8000; quote it: "8000"'),
    (container(tty="yes"), f"{ENGINE}.tty", "must be true or false"),
    (container(ports=[{"containerPort": 0}]), f"{ENGINE}.ports[0].containerPort", "0 is not a port"),
    (container(ports=[{"containerPort": "80"}]), f"{ENGINE}.ports[0].containerPort", "must be a whole number"),
    (container(ports=[{"containerPort": True}]), f"{ENGINE}.ports[0].containerPort", "must be a whole number"),
    (container(resources={"limits": {"memory": "2GB"}}), f"{ENGINE}.resources.limits.memory", "is not a quantity"),
    (container(resources={"limits": {"cpu": -1}}), f"{ENGINE}.resources.limits.cpu", "is negative"),
    (container(resources={"limits": {"nvidia.com/gpu": []}}), f'{ENGINE}.resources.limits["nvidia.com/gpu"]', "is not a quantity"),
    (container(readinessProbe={"httpGet": {"port": []}}), f"{ENGINE}.readinessProbe.httpGet.port", "whole number or text"),
    (container(readinessProbe={"httpGet": {}}), f"{ENGINE}.readinessProbe.httpGet.port", "required"),
    (container(env={"A": "1"}), f"{ENGINE}.env", "must be a list"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "path", "problem"), REFUSED, ids=[f"{case[0]}"[:80] for case in REFUSED])
def test_a_mistake_is_named_with_its_path(spec: Any, path: str, problem: str) -> None:
    found = {error.path: error.problem for error in pod_spec_problems(spec, "spec")}
    assert path in found, found
    assert problem in found[path]


def test_parts_of_a_pod_are_checked_alone() -> None:
    assert type_problems("[]EnvVar", [{"name": "A"}], "env") == []
    assert [error.path for error in type_problems("{}quantity", {"cpu": "x"}, "limits")] == ["limits.cpu"]


def test_every_type_that_the_table_names_is_in_it() -> None:
    table = json.loads((ROOT / "platform" / "api" / "podspec_fields.json").read_text())["types"]
    scalars = {"str", "int", "float", "bool", "quantity", "intstr", "any"}
    named = {kind.strip("[]{}!") for fields in table.values() for kind in fields.values()}
    assert named <= set(table) | scalars


@pytest.mark.parametrize(
    ("names", "engine"),
    [(["main"], "main"), (["runtime", "vllm"], "vllm"), (["proxy", "engine"], "engine"), (["runtime"], "runtime")],
)
def test_which_container_is_the_engine(names: list[str], engine: str) -> None:
    assert engine_container({"containers": [{"name": name} for name in names]})["name"] == engine
