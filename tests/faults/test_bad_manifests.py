"""A manifest that is wrong is refused with path, problem and what is allowed; nothing of it is applied."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from hekla.platform.base.errors import ApiError

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

GOOD: dict[str, Any] = {
    "apiVersion": "workload.serving.volcano.sh/v1alpha1",
    "kind": "ModelServing",
    "metadata": {"name": "refused"},
    "spec": {
        "replicas": 0,
        "template": {
            "roles": [
                {"name": "a", "replicas": 1, "workerReplicas": 0,
                 "entryTemplate": {"spec": {"containers": [{"name": "engine", "image": "sim"}]}}},
            ]
        },
    },
}  # fmt: skip
ROUTE: dict[str, Any] = {
    "apiVersion": "networking.serving.volcano.sh/v1alpha1",
    "kind": "ModelRoute",
    "metadata": {"name": "refused"},
    "spec": {"modelName": "refused", "rules": [{"name": "r", "targetModels": [{"modelServerName": "not-there"}]}]},
}


def edited(path: str, value: Any) -> dict[str, Any]:
    """A copy of GOOD with one field set; a path like `spec.template.roles.0.name`."""
    manifest = copy.deepcopy(GOOD)
    place: Any = manifest
    *way, last = path.split(".")
    for step in way:
        place = place[int(step)] if step.isdigit() else place[step]
    place[last] = value
    return manifest


ROLE = GOOD["spec"]["template"]["roles"][0]
REFUSALS = [
    ("an unknown field", edited("spec.replica", 1), "spec.replica", "replicas"),
    ("a wrong type", edited("spec.replicas", "many"), "spec.replicas", "many"),
    ("an unknown field in a pod", edited("spec.template.roles.0.entryTemplate.spec.containers.0.comand", ["x"]),
     "containers[0].comand", "command"),
    ("a bad name", edited("metadata.name", "Not_A_Name"), "metadata.name", "Not_A_Name"),
    ("a duplicate role", edited("spec.template.roles", [ROLE, ROLE]), "spec.template.roles[1].name", "a"),
    ("a missing role in the gang policy", edited("spec.template.gangPolicy", {"minRoleReplicas": {"zz": 1}}),
     "spec.template.gangPolicy.minRoleReplicas", "zz"),
    ("workers without a template", edited("spec.template.roles.0.workerReplicas", 2),
     "spec.template.roles[0].workerTemplate", "workerReplicas"),
    ("a choice that is none", edited("spec.recoveryPolicy", "Pray"), "spec.recoveryPolicy", "RoleRecreate"),
    ("a route to a server that is not there", ROUTE, "spec.rules[0].targetModels[0].modelServerName", "not-there"),
]  # fmt: skip


@pytest.mark.parametrize(("manifest", "path", "said"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_what_is_wrong_is_named_and_nothing_is_applied(live: Any, manifest: Any, path: str, said: str) -> None:
    good = edited("metadata.name", "applied-with-the-bad-one")
    with pytest.raises(ApiError) as refused:
        live.client.apply([good, manifest])
    assert refused.value.code == 422
    assert path in str(refused.value)
    assert said in str(refused.value)
    assert {"refused", "applied-with-the-bad-one"}.isdisjoint(
        obj["metadata"]["name"] for kind in ("ModelServing", "ModelRoute") for obj in live.client.list(kind)
    )


def test_every_problem_is_told_at_once(live: Any) -> None:
    manifest = edited("spec.replicas", -1)
    manifest["spec"]["recoveryPolicy"] = "Pray"
    manifest["spec"]["surprise"] = True
    with pytest.raises(ApiError) as refused:
        live.client.apply([manifest])
    paths = {cause.path.removeprefix("ModelServing default/refused: ") for cause in refused.value.causes}
    assert {"spec.replicas", "spec.recoveryPolicy", "spec.surprise"} <= paths
