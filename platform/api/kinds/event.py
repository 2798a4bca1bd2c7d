"""Event: something that happened to an object, counted when it repeats. Written by controllers."""

from __future__ import annotations

from hekla.platform.api.meta import ApiModel
from hekla.platform.api.registry import Column, Kind


class EventSpec(ApiModel):
    regarding_kind: str
    regarding_name: str
    regarding_uid: str = ""
    type: str = "Normal"
    """Normal or Warning."""
    reason: str
    message: str = ""
    count: int = 1
    first_seen: str = ""
    last_seen: str = ""


KIND = Kind(
    group="hekla.io",
    version="v1alpha1",
    kind="Event",
    plural="events",
    short_names=("ev",),
    spec=EventSpec,
    internal=True,
    columns=(
        Column("LAST SEEN", "spec.lastSeen"),
        Column("TYPE", "spec.type"),
        Column("REASON", "spec.reason"),
        Column("OBJECT", lambda obj: f"{obj['spec']['regardingKind']}/{obj['spec']['regardingName']}"),
        Column("COUNT", "spec.count"),
        Column("MESSAGE", "spec.message"),
    ),
    doc="something that happened to an object",
)
