"""What of a ModelServing means something on Kubernetes and nothing on a plain Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator

from hekla.platform.api.kinds.modelserving import ModelServingSpec
from hekla.platform.api.meta import Json
from hekla.platform.api.podtemplate import engine_container_index

HONOURED_POD_FIELDS = frozenset({"containers", "terminationGracePeriodSeconds"})
HONOURED_CONTAINER_FIELDS = frozenset({"name", "command", "args", "env", "resources", "ports"})
OWN_SCHEDULER = "volcano"
"""The default `schedulerName`; hekla's planner does the same gang scheduling."""


def ignored_on_ray(serving_spec: ModelServingSpec | Json) -> list[str]:
    """Paths of the fields that are kept but have no effect on Ray, for the condition `IgnoredOnRay`.

    A sidecar is one path with its name. The image is among them: on Ray the node's environment runs the engine.
    """
    spec = ModelServingSpec.model_validate(serving_spec) if isinstance(serving_spec, dict) else serving_spec
    return list(_ignored(spec))


def _ignored(spec: ModelServingSpec) -> Iterator[str]:
    if spec.scheduler_name != OWN_SCHEDULER:
        yield "spec.schedulerName"
    for index, role in enumerate(spec.roles):
        for field, template in (("entryTemplate", role.entry_template), ("workerTemplate", role.worker_template)):
            if template is not None:
                yield from _ignored_in_pod(template.spec, f"spec.template.roles[{index}].{field}.spec")


def _ignored_in_pod(pod: Json, path: str) -> Iterator[str]:
    for field, value in pod.items():
        if field not in HONOURED_POD_FIELDS and not _means_nothing(field, value):
            yield f"{path}.{field}"
    engine = engine_container_index(pod)
    for index, container in enumerate(pod["containers"]):
        if index == engine:
            yield from _ignored_in_container(container, f"{path}.containers[{index}]")
        else:
            yield f"{path}.containers[{index}] (sidecar {container['name']})"


def _means_nothing(field: str, value: object) -> bool:
    return value in (None, [], {}) or (field == "schedulerName" and value == OWN_SCHEDULER)


def _ignored_in_container(container: Json, path: str) -> Iterator[str]:
    for field, value in container.items():
        if field not in HONOURED_CONTAINER_FIELDS and value not in (None, [], {}, ""):
            yield f"{path}.{field}"
    for index, variable in enumerate(container.get("env") or ()):
        if variable.get("valueFrom"):
            yield f"{path}.env[{index}].valueFrom ({variable['name']})"
    if (container.get("resources") or {}).get("claims"):
        yield f"{path}.resources.claims"
