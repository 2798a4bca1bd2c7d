"""A pod template: what every entry or worker of a role is made from."""

from __future__ import annotations

from pydantic import Field

from hekla.platform.api.kubetypes import Annotations, Labels, PodSpecJson
from hekla.platform.api.meta import ApiModel, Json

ENGINE_CONTAINER = "engine"
"""The container of this name is the engine; without one, the first that is not a known sidecar."""

SIDECARS = frozenset({"runtime"})
"""Containers that Kthena puts beside an engine; hekla's supervisor does their work."""


class PodTemplateMeta(ApiModel):
    labels: Labels = Field(default_factory=dict)
    """Labels that each engine made from the template carries."""
    annotations: Annotations = Field(default_factory=dict)
    """Annotations that each engine made from the template carries."""


class PodTemplate(ApiModel):
    metadata: PodTemplateMeta = Field(default_factory=PodTemplateMeta)
    spec: PodSpecJson
    """A Kubernetes PodSpec, kept as written."""


def engine_container_index(pod_spec: Json) -> int:
    """Which of the containers (at least one) is the engine."""
    names = [container.get("name") for container in pod_spec["containers"]]
    if ENGINE_CONTAINER in names:
        return names.index(ENGINE_CONTAINER)
    return next((index for index, name in enumerate(names) if name not in SIDECARS), 0)


def engine_container(pod_spec: Json) -> Json:
    """The container that runs the engine."""
    container: Json = pod_spec["containers"][engine_container_index(pod_spec)]
    return container
