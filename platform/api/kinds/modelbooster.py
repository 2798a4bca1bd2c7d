"""ModelBooster: one model, one object. It becomes a ModelServing, a ModelServer and a ModelRoute."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from hekla.platform.api.adapters import LoraAdapter, adapter_problems
from hekla.platform.api.kinds.modelroute import LORA_ADAPTERS_MAX, ModelMatch
from hekla.platform.api.kinds.modelroute import match_problems as route_match_problems
from hekla.platform.api.kubetypes import AffinityJson, EnvFromSources, EnvVars, Image, ResourcesJson, Tolerations
from hekla.platform.api.meta import ApiModel, Json, condition_status
from hekla.platform.api.names import dns_1035_problem, dns_label_problem, pod_name_problem
from hekla.platform.api.registry import Column, Kind
from hekla.platform.api.values import FreeObject
from hekla.platform.api.wording import shown
from hekla.platform.base.errors import FieldError

REPLICAS_MAX = 1_000_000
WORKERS_MAX = 1000
NAME_CHARS_MAX = 64
URI_CHARS_MAX = 2048
ENGINE_PORT = 8000
"""The engine's port when `config.port` does not name one."""

BackendType = Literal["vLLM", "vLLMDisaggregated", "SGLang", "Simulated", "SimulatedDisaggregated"]
WorkerType = Literal["server", "prefill", "decode", "controller", "coordinator"]
DISAGGREGATED = frozenset({"vLLMDisaggregated", "SimulatedDisaggregated"})

CONNECTORS = {
    "MooncakeConnector": "mooncake",
    "MooncakeConnectorV1": "mooncake",
    "NixlConnector": "nixl",
    "LMCacheConnectorV1": "lmcache",
}
"""vLLM's connector classes and the ModelServer connector each becomes."""

KV_ROLES = {"prefill": ("kv_producer", "kv_both"), "decode": ("kv_consumer", "kv_both")}

_MODEL_SCHEMES = ("hf://", "s3://", "obs://", "pvc://", "ms://", "gguf://", "file://", "/")
_CACHE_SCHEMES = ("hostpath://", "pvc://")


_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


def _starts_with(schemes: tuple[str, ...], text: str) -> str:
    if len(text) > URI_CHARS_MAX:
        raise ValueError(f"has {len(text)} characters; allowed: at most {URI_CHARS_MAX}")
    if not any(text.startswith(scheme) and len(text) > len(scheme) for scheme in schemes):
        allowed = ", ".join(f"{scheme}…" for scheme in schemes)
        raise ValueError(f"{shown(text)} is not a place this reads from; allowed: {allowed}")
    return text


Name = Annotated[str, Field(max_length=NAME_CHARS_MAX, pattern=_NAME)]


def _uri_schema(schemes: tuple[str, ...]) -> WithJsonSchema:
    pattern = f"^({'|'.join(schemes)}).+"
    return WithJsonSchema({"type": "string", "pattern": pattern, "maxLength": URI_CHARS_MAX})


ModelURI = Annotated[str, AfterValidator(lambda text: _starts_with(_MODEL_SCHEMES, text)), _uri_schema(_MODEL_SCHEMES)]
CacheURI = Annotated[str, AfterValidator(lambda text: _starts_with(_CACHE_SCHEMES, text)), _uri_schema(_CACHE_SCHEMES)]


class Worker(ApiModel):
    type: WorkerType = "server"
    """`server` for vLLM, SGLang and Simulated; one `prefill` and one `decode` for the disaggregated types."""
    image: Image = ""
    """The engine's container image on Kubernetes; on Ray the node's own environment runs it."""
    replicas: int = Field(default=1, ge=0, le=REPLICAS_MAX)
    """Role replicas in each serving group."""
    pods: int = Field(default=1, ge=0, le=REPLICAS_MAX)
    """Processes of one role replica: one entry, the others workers."""
    resources: ResourcesJson | None = None
    """Kubernetes resource requirements of each process."""
    affinity: AffinityJson | None = None
    """Kubernetes affinity; no effect on Ray."""
    tolerations: Tolerations = Field(default_factory=list)
    """Kubernetes tolerations; no effect on Ray."""
    config: FreeObject = Field(default_factory=dict)
    """Arguments of the engine's command line, by name without the dashes."""


class Backend(ApiModel):
    name: Name
    """Part of the generated objects' names."""
    type: BackendType
    """`SGLang`, `Simulated` and `SimulatedDisaggregated` (hekla's simulated engine) are hekla's additions."""
    model_uri: ModelURI = Field(alias="modelURI")
    """Where the weights come from. hekla's additions: `gguf://package/file.gguf`, `gguf:///path/file.gguf`, `file://`
    and an absolute path."""
    cache_uri: CacheURI | None = Field(default=None, alias="cacheURI")
    """Where the weights are kept; unset: the platform's own cache."""
    env_from: EnvFromSources = Field(default_factory=list)
    """Environment from ConfigMaps and Secrets; no effect on Ray."""
    env: EnvVars = Field(default_factory=list)
    """Environment of every process, as in a Kubernetes container."""
    replicas: int = Field(ge=0, le=REPLICAS_MAX)
    """Serving groups."""
    workers: list[Worker] = Field(min_length=1, max_length=WORKERS_MAX)
    scheduler_name: str | None = None
    """The Kubernetes scheduler of the pods; unset: `volcano`."""
    runtime_class_name: str | None = None
    """The Kubernetes runtime class of the pods; no effect on Ray."""
    lora_adapters: list[LoraAdapter] = Field(default_factory=list, max_length=LORA_ADAPTERS_MAX)
    """hekla's addition: LoRA adapters of the model, which the generated ModelRoute lists. The engines are started with
    `--enable-lora`; more than ten are declared on a ModelServer of one's own."""

    @property
    def is_disaggregated(self) -> bool:
        return self.type in DISAGGREGATED

    def engine_port(self) -> int:
        """The port that the workers' config names, the same for all; 8000 when none does."""
        return config_port(self.workers[0].config)

    def kv_connector(self) -> str | None:
        """`nixl`, `mooncake` or `lmcache`, from the workers' `kv-transfer-config`; None when they have none."""
        for worker in self.workers:
            if (config := kv_transfer_config(worker.config)) is not None:
                return CONNECTORS.get(str(config.get("kv_connector")))
        return None


class ModelBoosterSpec(ApiModel):
    name: Name | None = None
    """The model name that clients send; unset: the object's own name."""
    owner: str | None = None
    """Free text: whom to ask."""
    backend: Backend
    model_match: ModelMatch | None = None
    """Which requests for the model the generated route takes; unset: all."""


def config_value(config: Json, name: str) -> Any:
    """An engine argument, whether written with dashes or underscores."""
    return config.get(name, config.get(name.replace("-", "_")))


def config_port(config: Json) -> int:
    """`config.port`, a number or digits; 8000 when unset. Raises ValueError."""
    value = config.get("port", ENGINE_PORT)
    digits = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and 1 <= int(digits) <= 65535):
        raise ValueError(f"{shown(value)} is not a port; allowed: a whole number from 1 to 65535")
    return int(digits)


def kv_transfer_config(config: Json) -> Json | None:
    """The parsed `kv-transfer-config`, a JSON object in a string; None when unset. Raises ValueError."""
    text = config_value(config, "kv-transfer-config")
    if text is None:
        return None
    try:
        parsed = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        parsed = None
    if isinstance(parsed, dict):
        return parsed
    raise ValueError(f"{shown(text)} is not a JSON object in a string; allowed: such as '{{\"kv_connector\": …}}'")


def check(new: Json, _old: Json | None) -> list[FieldError]:
    spec = ModelBoosterSpec.model_validate(new["spec"])
    backend = spec.backend
    problems = [
        *_worker_type_problems(backend),
        *_port_problems(backend),
        *_pvc_problems(backend),
        *_kv_problems(backend),
        *_name_problems(backend, new["metadata"].get("name") or ""),
        *adapter_problems(backend.lora_adapters, "spec.backend.loraAdapters", spec.name or new["metadata"].get("name")),
    ]
    if spec.model_match is not None:
        problems.extend(route_match_problems(spec.model_match, "spec.modelMatch"))
    return problems


def _worker_type_problems(backend: Backend) -> Iterator[FieldError]:
    path = "spec.backend.workers"
    allowed = ("prefill", "decode") if backend.is_disaggregated else ("server",)
    for index, worker in enumerate(backend.workers):
        if worker.type not in allowed:
            problem = f'"{worker.type}" does not fit backend type {backend.type}; allowed: {", ".join(allowed)}'
            yield FieldError(f"{path}[{index}].type", problem)
    # Each worker type becomes a role of that name, and a pair can't serve without both.
    for wanted in allowed:
        count = sum(worker.type == wanted for worker in backend.workers)
        if count != 1:
            problem = f"{backend.type} has {count} workers of type {wanted}; allowed: exactly one"
            yield FieldError(path, problem)


def _port_problems(backend: Backend) -> Iterator[FieldError]:
    ports: dict[int, int] = {}
    for index, worker in enumerate(backend.workers):
        try:
            ports[index] = config_port(worker.config)
        except ValueError as error:
            yield FieldError(f"spec.backend.workers[{index}].config.port", str(error))
    first = next(iter(ports.values()), ENGINE_PORT)
    for index, port in ports.items():
        if port != first:
            problem = f"{port} differs from the other workers' {first}; allowed: one port for all workers"
            yield FieldError(f"spec.backend.workers[{index}].config.port", problem)


def _pvc_problems(backend: Backend) -> Iterator[FieldError]:
    if not backend.model_uri.startswith("pvc://"):
        return
    cache = backend.cache_uri or ""
    model_steps = backend.model_uri.removeprefix("pvc://").strip("/").split("/")
    claim = cache.removeprefix("pvc://").strip("/")
    if ".." in model_steps:
        yield FieldError("spec.backend.modelURI", f"{shown(backend.model_uri)} holds '..'; allowed: a path without it")
    if not cache.startswith("pvc://"):
        said = shown(cache) if cache else "unset"
        yield FieldError("spec.backend.cacheURI", f"is {said}, but modelURI is a pvc:// one; allowed: pvc://<claim>")
    elif problem := dns_label_problem(claim):
        yield FieldError("spec.backend.cacheURI", f"must name a single claim: {problem}")
    elif model_steps[0] != claim:
        problem = f"{shown(backend.model_uri)} is outside the cache's claim; allowed: pvc://{claim}/…"
        yield FieldError("spec.backend.modelURI", problem)


def _kv_problems(backend: Backend) -> Iterator[FieldError]:
    found: dict[int, Json] = {}
    broken = False
    for index, worker in enumerate(backend.workers):
        path = f"spec.backend.workers[{index}].config.kv-transfer-config"
        try:
            config = kv_transfer_config(worker.config)
        except ValueError as error:
            broken = True
            yield FieldError(path, str(error))
            continue
        if config is not None:
            found[index] = config
            if worker.type in KV_ROLES:
                yield from _kv_config_problems(worker.type, config, path)
    if backend.is_disaggregated and not broken:
        yield from _kv_pair_problems(backend, found)


def _kv_config_problems(worker_type: str, config: Json, path: str) -> Iterator[FieldError]:
    connector, role = config.get("kv_connector"), config.get("kv_role")
    if not isinstance(connector, str) or connector not in CONNECTORS:
        yield FieldError(path, f"kv_connector {shown(connector)} is unknown; allowed: {', '.join(CONNECTORS)}")
    roles = KV_ROLES[worker_type]
    if role not in roles:
        yield FieldError(path, f"kv_role {shown(role)} does not fit {worker_type}; allowed: {', '.join(roles)}")


def _kv_pair_problems(backend: Backend, found: dict[int, Json]) -> Iterator[FieldError]:
    path = "spec.backend.workers"
    if found and len(found) != len(backend.workers):
        without = next(index for index in range(len(backend.workers)) if index not in found)
        problem = "missing while another worker has one; allowed: all workers or none"
        yield FieldError(f"{path}[{without}].config.kv-transfer-config", problem)
    names = [str(config.get("kv_connector")) for config in found.values()]
    kinds = {CONNECTORS[name] for name in names if name in CONNECTORS}
    if len(kinds) > 1:
        problem = f"the workers' kv_connector differ ({', '.join(sorted(kinds))}); allowed: one connector for all"
        yield FieldError(path, problem)


def _name_problems(backend: Backend, booster: str) -> Iterator[FieldError]:
    """The generated objects' names have to be valid too, or the booster could never become active."""
    if not booster:
        return
    if problem := dns_1035_problem(f"{booster}-{backend.name}"):
        yield FieldError("metadata.name", f"the generated name <name>-<backend> {problem}")
        return
    for worker in backend.workers:
        role = "leader" if worker.type == "server" else worker.type
        parts = (booster, backend.name, backend.replicas, role, worker.replicas, max(worker.pods - 1, 0))
        if problem := pod_name_problem(parts):
            yield FieldError("metadata.name", f"for the {worker.type} worker, {problem}")


KIND = Kind(
    group="workload.serving.volcano.sh",
    version="v1alpha1",
    kind="ModelBooster",
    plural="modelboosters",
    short_names=("mb",),
    spec=ModelBoosterSpec,
    check=check,
    columns=(
        Column("MODEL", lambda obj: str(obj["spec"].get("name") or obj["metadata"]["name"])),
        Column("BACKEND", "spec.backend.type"),
        Column("REPLICAS", "spec.backend.replicas"),
        Column("ACTIVE", lambda obj: condition_status(obj, "Active")),
    ),
    ready_condition="Active",
    doc="one model to serve: becomes a ModelServing, a ModelServer and a ModelRoute",
)
