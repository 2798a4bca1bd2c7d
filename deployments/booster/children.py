"""How a generated object and the one in the store become one. Pure.

What somebody edits away from the revision is put back; how many replicas there are is not, because scaling a
generated ModelServing (by hand, or by an autoscaler) is no mistake. A new revision sets the count anew.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

from hekla.deployments.naming import LABEL_BOOSTER_REVISION
from hekla.platform.api.meta import Json, is_owned_by, ref_of

Action = Literal["create", "update", "replace", "keep", "wait", "refuse"]


@dataclass(frozen=True)
class Step:
    """`replace`: delete, then create, for a field that can't change in place."""

    action: Action
    object: Json
    message: str = ""


def step_for(wanted: Json, found: Json | None, owner_uid: str) -> Step:
    """What to do about one child; `wanted` has been admitted, so its defaults are filled as the stored one's are."""
    if found is None:
        return Step("create", wanted)
    if not is_owned_by(found, owner_uid):
        return Step("refuse", wanted, f"{ref_of(wanted)} exists and does not belong to this ModelBooster")
    if found["metadata"].get("deletionTimestamp"):
        return Step("wait", wanted, f"{ref_of(wanted)} is still going away")
    if wanted["spec"].get("modelName") != found["spec"].get("modelName"):
        return Step("replace", wanted, "modelName can't change in place")
    spec = wanted["spec"]
    if _revision(wanted) == _revision(found):
        spec = with_scale_of(spec, found["spec"])
    labels = {**(found["metadata"].get("labels") or {}), **wanted["metadata"]["labels"]}
    if spec == found["spec"] and labels == found["metadata"].get("labels"):
        return Step("keep", found)
    return Step("update", {**found, "spec": spec, "metadata": {**found["metadata"], "labels": labels}})


def with_scale_of(wanted: Json, found: Json) -> Json:
    """The wanted spec with the replica counts that the found one has, of the whole and of each role."""
    spec = copy.deepcopy(wanted)
    if "replicas" in spec and "replicas" in found:
        spec["replicas"] = found["replicas"]
    counts = {role["name"]: role["replicas"] for role in (found.get("template") or {}).get("roles") or ()}
    for role in (spec.get("template") or {}).get("roles") or ():
        role["replicas"] = counts.get(role["name"], role["replicas"])
    return spec


def _revision(obj: Json) -> str:
    return str((obj["metadata"].get("labels") or {}).get(LABEL_BOOSTER_REVISION, ""))
