"""What a ModelBooster becomes: a ModelServing, a ModelServer and a ModelRoute. Pure.

The manifests are ordinary ones: a person could have written them, and nothing in hekla knows that nobody did.
"""

from __future__ import annotations

from hekla.deployments.booster.arguments import SERVED_NAME, engine_args, served_name
from hekla.deployments.naming import (
    ANNOTATION_CACHE,
    ANNOTATION_ENGINE,
    LABEL_BACKEND,
    LABEL_BOOSTER_REVISION,
    LABEL_GROUP,
    LABEL_MANAGED_BY,
    LABEL_MODEL,
    LABEL_MODEL_UID,
    LABEL_ROLE,
)
from hekla.deployments.revision import content_hash
from hekla.platform.api.kinds.modelbooster import Backend, ModelBoosterSpec, Worker
from hekla.platform.api.meta import Json, owner_reference

MANAGED_BY = "hekla"
WORKLOAD_API = "workload.serving.volcano.sh/v1alpha1"
NETWORKING_API = "networking.serving.volcano.sh/v1alpha1"

ROLES = {"server": "leader"}
"""Roles are named after the worker's type; a server's role has Kthena's name, which its users select by."""

IMAGES = {
    "vLLM": "vllm/vllm-openai:v0.32.0",
    "SGLang": "lmsysorg/sglang:latest",
    "Simulated": "hekla/simulated-engine:latest",
}
"""The image where the manifest names none: what Kubernetes would run. On Ray the node's environment runs the engine."""

COMMANDS = {
    "vLLM": ["python3", "-m", "vllm.entrypoints.openai.api_server"],
    "SGLang": ["python3", "-m", "sglang.launch_server"],
    "Simulated": ["python3", "-m", "hekla.deployments.simengine"],
}
MODEL_FLAGS = {"SGLang": "--model-path"}

RESTART_GRACE_S = 60
"""A server that fails has this long to come back in place before its role replica is replaced."""
DRAIN_GRACE_S = 300
"""Long answers are finished before an engine goes."""
RETRY_ATTEMPTS = 5
LORA_SLOTS = "4"
"""Adapters that an engine holds at once where the config names no `max-loras`: each takes memory for its largest rank."""
LORA_SLOT_FLAGS = {"SGLang": "--max-loras-per-batch"}
REVISION_SEED = "1"
"""Raise it when the generated objects change in a way that running boosters must follow."""


def generate(booster: Json) -> list[Json]:
    """The three objects, in the order they are to be applied: what a route names exists before it."""
    spec = ModelBoosterSpec.model_validate(booster["spec"])
    return [_serving(booster, spec), _server(booster, spec), _route(booster, spec)]


def child_name(booster: Json, backend: Backend) -> str:
    return f"{booster['metadata']['name']}-{backend.name}"


def public_name(booster: Json, spec: ModelBoosterSpec) -> str:
    """The model name that clients send."""
    return spec.name or str(booster["metadata"]["name"])


def engine_model_name(booster: Json, spec: ModelBoosterSpec) -> str:
    """The name the engines answer to: the config's served-model-name (the decode worker's first), else the public one."""
    for kind in ("server", "decode", "prefill"):
        for worker in spec.backend.workers:
            if worker.type == kind and (name := served_name(worker.config)):
                return name
    return public_name(booster, spec)


def engine_type(backend: Backend) -> str:
    return backend.type.removesuffix("Disaggregated")


def _meta(booster: Json, spec: ModelBoosterSpec, name: str, revised: object) -> Json:
    meta = booster["metadata"]
    labels = {**selector(booster, spec.backend), LABEL_MANAGED_BY: MANAGED_BY, LABEL_MODEL: meta["name"]}
    return {
        "name": name,
        "namespace": meta["namespace"],
        "labels": {**labels, LABEL_BOOSTER_REVISION: content_hash([REVISION_SEED, revised])},
        "ownerReferences": [owner_reference(booster)],
    }


def selector(booster: Json, backend: Backend) -> dict[str, str]:
    """The labels that find this booster's engines, and no namesake's."""
    return {LABEL_MODEL_UID: booster["metadata"]["uid"], LABEL_BACKEND: backend.name}


def _serving(booster: Json, spec: ModelBoosterSpec) -> Json:
    backend = spec.backend
    grace_s = 0 if backend.is_disaggregated else RESTART_GRACE_S
    body = {
        "replicas": backend.replicas,
        **({"schedulerName": backend.scheduler_name} if backend.scheduler_name else {}),
        "template": {
            "restartGracePeriodSeconds": grace_s,
            "roles": [_role(booster, spec, worker) for worker in backend.workers],
        },
    }
    # Adapters come and go without the engines noticing; what their flags need of them is in the arguments.
    others = {key: value for key, value in booster["spec"]["backend"].items() if key != "loraAdapters"}
    revised = [others, engine_model_name(booster, spec), *(["lora"] if backend.lora_adapters else [])]
    return {
        "apiVersion": WORKLOAD_API,
        "kind": "ModelServing",
        "metadata": _meta(booster, spec, child_name(booster, backend), revised),
        "spec": body,
    }


def _role(booster: Json, spec: ModelBoosterSpec, worker: Worker) -> Json:
    role: Json = {
        "name": ROLES.get(worker.type, worker.type),
        "replicas": worker.replicas,
        "workerReplicas": max(0, worker.pods - 1),
        "entryTemplate": _template(booster, spec, worker, is_worker=False),
    }
    if worker.pods > 1:
        role["workerTemplate"] = _template(booster, spec, worker, is_worker=True)
    return role


def _template(booster: Json, spec: ModelBoosterSpec, worker: Worker, *, is_worker: bool) -> Json:
    backend = spec.backend
    annotations = {ANNOTATION_ENGINE: engine_type(backend)}
    if backend.cache_uri:
        annotations[ANNOTATION_CACHE] = backend.cache_uri
    pod: Json = {
        "terminationGracePeriodSeconds": DRAIN_GRACE_S,
        "containers": [_container(booster, spec, worker, is_worker)],
    }
    optional = {"affinity": worker.affinity, "tolerations": worker.tolerations}
    pod |= {key: value for key, value in optional.items() if value}
    if backend.runtime_class_name:
        pod["runtimeClassName"] = backend.runtime_class_name
    labels = {**selector(booster, backend), LABEL_MODEL: booster["metadata"]["name"]}
    return {"metadata": {"labels": labels, "annotations": annotations}, "spec": pod}


def _container(booster: Json, spec: ModelBoosterSpec, worker: Worker, is_worker: bool) -> Json:
    backend, engine = spec.backend, engine_type(spec.backend)
    raw = booster["spec"]["backend"]
    container: Json = {
        "name": "engine",
        "image": worker.image or IMAGES[engine],
        "command": COMMANDS[engine],
        "args": [
            *(MODEL_FLAGS.get(engine, "--model"), backend.model_uri),
            *(f"--{SERVED_NAME}", served_name(worker.config) or engine_model_name(booster, spec)),
            *engine_args(worker.config),
            *_lora_args(engine, spec.backend, worker),
            *_several_nodes(engine, worker, is_worker),
        ],
        "ports": [{"name": "http", "containerPort": backend.engine_port()}],
    }
    if worker.resources:
        container["resources"] = dict(worker.resources)
    for key in ("env", "envFrom"):
        if raw.get(key):
            container[key] = raw[key]
    return container


def _lora_args(engine: str, backend: Backend, worker: Worker) -> list[str]:
    """What the config does not say itself. The same for any number of adapters: another one is no reason to restart."""
    given = {name.replace("_", "-") for name in worker.config}
    if not backend.lora_adapters:
        return []
    slots = LORA_SLOT_FLAGS.get(engine, "--max-loras")
    return [
        *([] if "enable-lora" in given else ["--enable-lora"]),
        *([] if slots.removeprefix("--") in given else [slots, LORA_SLOTS]),
    ]


def _several_nodes(engine: str, worker: Worker, is_worker: bool) -> list[str]:
    """The engine's own multi-node mode; the variables are known when a role replica has its place."""
    if worker.pods <= 1 or engine == "Simulated":
        return []
    nodes = ["--nnodes", "$(GROUP_SIZE)", "--node-rank", "$(WORKER_INDEX)"]
    if engine == "SGLang":
        return [*nodes, "--dist-init-addr", "$(ENTRY_ADDRESS):20000"]
    return [*nodes, "--master-addr", "$(ENTRY_ADDRESS)", *(["--headless"] if is_worker else [])]


def _server(booster: Json, spec: ModelBoosterSpec) -> Json:
    backend = spec.backend
    chosen: Json = {"matchLabels": selector(booster, backend)}
    if backend.is_disaggregated:
        chosen["pdGroup"] = {
            "groupKey": LABEL_GROUP,
            "prefillLabels": {LABEL_ROLE: "prefill"},
            "decodeLabels": {LABEL_ROLE: "decode"},
        }
    body: Json = {
        "model": engine_model_name(booster, spec),
        "inferenceEngine": engine_type(backend),
        "workloadSelector": chosen,
        "workloadPort": {"port": backend.engine_port()},
        "trafficPolicy": {"retry": {"attempts": RETRY_ATTEMPTS, "retryInterval": "0s"}},
    }
    if backend.lora_adapters:
        body["loraAdapters"] = [adapter.model_dump(exclude_defaults=True) for adapter in backend.lora_adapters]
    if backend.is_disaggregated and (connector := _connector(backend)):
        body["kvConnector"] = {"type": connector}
    return {
        "apiVersion": NETWORKING_API,
        "kind": "ModelServer",
        "metadata": _meta(booster, spec, child_name(booster, backend), body),
        "spec": body,
    }


def _connector(backend: Backend) -> str | None:
    """As the workers' kv-transfer-config says; the simulated engine speaks NIXL's parameters without being told."""
    return backend.kv_connector() or ("nixl" if backend.type == "SimulatedDisaggregated" else None)


def _route(booster: Json, spec: ModelBoosterSpec) -> Json:
    rule: Json = {"name": "default", "targetModels": [{"modelServerName": child_name(booster, spec.backend)}]}
    if booster["spec"].get("modelMatch"):
        rule["modelMatch"] = booster["spec"]["modelMatch"]
    body: Json = {"modelName": public_name(booster, spec), "rules": [rule]}
    if spec.backend.lora_adapters:
        body["loraAdapters"] = [adapter.name for adapter in spec.backend.lora_adapters]
    return {
        "apiVersion": NETWORKING_API,
        "kind": "ModelRoute",
        "metadata": _meta(booster, spec, booster["metadata"]["name"], body),
        "spec": body,
    }
