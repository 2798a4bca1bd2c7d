"""What every resource object has. Objects travel as plain JSON dicts (`Json`); controllers parse the part they read.

An object: ``{"apiVersion", "kind", "metadata": {...}, "spec": {...}, "status": {...}}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Json = dict[str, Any]
"""A JSON object."""


class ApiModel(BaseModel):
    """Base of all specs: camelCase outside, snake_case inside, unknown fields refused."""

    model_config = ConfigDict(
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        use_attribute_docstrings=True,  # field docstrings become the schema's descriptions
    )


class OwnerReference(ApiModel):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(ApiModel):
    # What other clients put into metadata (managedFields, generateName, …) is kept, not refused.
    model_config = ConfigDict(extra="allow")

    name: str = ""
    namespace: str = "default"
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    finalizers: list[str] = Field(default_factory=list)
    owner_references: list[OwnerReference] = Field(default_factory=list)


class Condition(ApiModel):
    """A Kubernetes condition; `last_transition_time` moves only when `status` changes."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""
    observed_generation: int | None = None


@dataclass(frozen=True, order=True)
class Ref:
    """Names one object. `kind` is the kind's name (`ModelServing`): unique in the registry."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def ref_of(obj: Json) -> Ref:
    meta = obj["metadata"]
    return Ref(obj["kind"], meta.get("namespace") or "default", meta["name"])


def owner_reference(owner: Json) -> Json:
    """The controller reference a child carries in `metadata.ownerReferences`."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def is_owned_by(obj: Json, owner_uid: str) -> bool:
    return any(ref.get("uid") == owner_uid for ref in obj["metadata"].get("ownerReferences", ()))


def matches_labels(obj: Json, wanted: dict[str, str]) -> bool:
    """True when every wanted label is on the object with that value; no wanted label matches everything."""
    labels = obj["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in wanted.items())


def set_condition(conditions: list[Json], condition: Condition, now: str) -> list[Json]:
    """A new list with `condition` in its place; its transition time is kept while its status stays the same."""
    old = next((c for c in conditions if c["type"] == condition.type), None)
    same = old is not None and old["status"] == condition.status
    since = old.get("lastTransitionTime", now) if old is not None and same else now
    fresh = condition.model_copy(update={"last_transition_time": since}).model_dump(exclude_none=True)
    if old is None:
        return [*conditions, fresh]
    return [fresh if c["type"] == condition.type else c for c in conditions]


def condition_status(obj: Json, kind: str) -> str:
    """`True`, `False` or `Unknown`: the status of the object's condition of that type."""
    for condition in obj.get("status", {}).get("conditions", ()):
        if condition["type"] == kind:
            return str(condition["status"])
    return "Unknown"
