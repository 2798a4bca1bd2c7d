"""Names and labels. A name is a function of the ordinals, so that a lost object comes back under its own name.

ServingGroup   <serving>-<g>
role replica   <serving>-<g>-<role>-<r>        one placement group
engine         <serving>-<g>-<role>-<r>-<k>    k = 0 is the entry, 1… the workers
"""

from __future__ import annotations

from hekla.platform.api.meta import Json

_SERVING = "modelserving.volcano.sh"
LABEL_SERVING = f"{_SERVING}/name"
LABEL_GROUP = f"{_SERVING}/group-name"
LABEL_ROLE = f"{_SERVING}/role"
LABEL_ROLE_ID = f"{_SERVING}/role-id"
LABEL_ENTRY = f"{_SERVING}/entry"
LABEL_REVISION = f"{_SERVING}/revision"
LABEL_ROLE_HASH = f"{_SERVING}/role-template-hash"

_WORKLOAD = "workload.serving.volcano.sh"
LABEL_MODEL = f"{_WORKLOAD}/model-name"
LABEL_MODEL_UID = f"{_WORKLOAD}/model-uid"
LABEL_BACKEND = f"{_WORKLOAD}/backend-name"
LABEL_MANAGED_BY = f"{_WORKLOAD}/managed-by"
LABEL_BOOSTER_REVISION = f"{_WORKLOAD}/revision"

ANNOTATION_ENGINE = "hekla.io/engine"
"""On a pod template (label or annotation): `vLLM`, `SGLang`, `Simulated` or `Command`, whatever the command says."""
ANNOTATION_CACHE = "hekla.io/cache-uri"
"""On a pod template: where weights are cached (`hostpath:///dir`, `pvc://claim`)."""
ANNOTATION_RETIRED = "hekla.io/retired-because"
"""On an Engine: hekla itself decided to remove it. A deletion without it is somebody else's, and is recovered from."""
ANNOTATION_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

FINALIZER_SERVING = "hekla.io/engines"
"""On a ModelServing: its engines are drained and stopped before it goes."""
FINALIZER_ENGINE = "hekla.io/engine"
"""On an Engine: its actor and its share of the placement group are gone before it goes."""

CLUSTER_PREFIX = "engine."
"""Actors and placement groups with this prefix belong to the ModelServing controller, and to nobody else."""


def group_name(serving: str, group: int) -> str:
    return f"{serving}-{group}"


def replica_name(serving: str, group: int, role: str, replica: int) -> str:
    return f"{serving}-{group}-{role}-{replica}"


def engine_name(unit_name: str, index: int) -> str:
    return f"{unit_name}-{index}"


def revision_name(serving: str, revision: str) -> str:
    return f"{serving}-{revision}"


def placement_group_name(namespace: str, unit_name: str, attempt: str) -> str:
    """`attempt` (any unique text) tells a new group from one of the same replica that is still going away."""
    return f"{CLUSTER_PREFIX}{namespace}.{unit_name}.{attempt[:8]}"


def actor_name(engine: Json) -> str:
    """The supervisor's actor: another one for each incarnation, so a late word from an old one can't be taken for news."""
    meta = engine["metadata"]
    restarts = (engine.get("status") or {}).get("restarts", 0)
    return f"{CLUSTER_PREFIX}{meta['namespace']}.{meta['name']}.{meta['uid'][:8]}.{restarts}"


def engine_labels(serving: str, group: int, role: str, replica: int) -> dict[str, str]:
    """The labels that say where an engine belongs."""
    return {
        LABEL_SERVING: serving,
        LABEL_GROUP: group_name(serving, group),
        LABEL_ROLE: role,
        LABEL_ROLE_ID: f"{role}-{replica}",
    }
