"""What of a ModelServing means something on Kubernetes and nothing on a plain Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hekla.platform.api.kinds.modelserving import ModelServingSpec
from hekla.platform.api.meta import Json
from hekla.platform.api.podtemplate import engine_container_index

HONOURED_POD_FIELDS = frozenset({"containers", "terminationGracePeriodSeconds"})
HONOURED_CONTAINER_FIELDS = frozenset({"name", "command", "args", "env", "resources", "ports"})
OWN_SCHEDULER = "volcano"
"""The default `schedulerName`; hekla's planner does the same gang scheduling."""
SCHEDULING_DOMAINS = ("volcano.sh", "scheduling.volcano.sh", "scheduling.k8s.io")
"""Annotations below these ask a Kubernetes scheduler for something (a queue, a QoS level); nothing here reads them."""


def ignored_on_ray(serving_spec: ModelServingSpec | Json, annotations: Mapping[str, str] | None = None) -> list[str]:
    """Paths of the fields that are kept but have no effect on Ray, for the condition `IgnoredOnRay`.

    `annotations` are those of the ModelServing itself. A sidecar is one path with its name. The image is among them: on
    Ray the node's environment runs the engine.
    """
    spec = ModelServingSpec.model_validate(serving_spec) if isinstance(serving_spec, dict) else serving_spec
    return [*_ignored_annotations(annotations or {}, "metadata"), *_ignored(spec)]


def _ignored_annotations(annotations: Mapping[str, str], path: str) -> Iterator[str]:
    for key in annotations:
        domain, slash, _ = key.rpartition("/")
        if slash and domain in SCHEDULING_DOMAINS:
            yield f"{path}.annotations[{key}]"


def _ignored(spec: ModelServingSpec) -> Iterator[str]:
    if spec.scheduler_name != OWN_SCHEDULER:
        yield "spec.schedulerName"
    for index, plugin in enumerate(spec.plugins):
        yield f"spec.plugins[{index}] ({plugin.name})"
    if (topology := spec.template.network_topology) is not None:
        if topology.group_policy is not None:
            yield "spec.template.networkTopology.groupPolicy"
        if topology.role_policy is not None:
            yield "spec.template.networkTopology.rolePolicy"
    for index, role in enumerate(spec.roles):
        for field, template in (("entryTemplate", role.entry_template), ("workerTemplate", role.worker_template)):
            if template is not None:
                path = f"spec.template.roles[{index}].{field}"
                yield from _ignored_annotations(template.metadata.annotations, f"{path}.metadata")
                yield from _ignored_in_pod(template.spec, f"{path}.spec")


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
