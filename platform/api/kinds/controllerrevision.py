"""ControllerRevision: the roles of a ModelServing as they were at one revision. Written by hekla.

Groups that a partition keeps on the old revision are recreated from here, so what is old outlives the controller.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from hekla.platform.api.meta import ApiModel
from hekla.platform.api.registry import Column, Kind


class ControllerRevisionSpec(ApiModel):
    serving: str
    """Name of the ModelServing."""
    revision: str
    """Hash of the roles."""
    roles: list[dict[str, Any]] = Field(default_factory=list)
    """`spec.template.roles` of that revision."""


KIND = Kind(
    group="hekla.io",
    version="v1alpha1",
    kind="ControllerRevision",
    plural="controllerrevisions",
    short_names=("rev",),
    spec=ControllerRevisionSpec,
    internal=True,
    columns=(Column("SERVING", "spec.serving"), Column("REVISION", "spec.revision")),
    doc="the roles of a ModelServing at one revision",
)
