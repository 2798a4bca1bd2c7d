"""Reads a pod template as an engine: which program, which arguments, which resources. Pure.

The image is not pulled on a plain Ray cluster: the program comes from the node's own environment. What else of a pod
template has no meaning there is named in the condition `IgnoredOnRay`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hekla.deployments.command_line import ParsedCommand, kv_role, parse_command
from hekla.deployments.launch import EngineLaunch, EngineRole, EngineType
from hekla.deployments.naming import ANNOTATION_CACHE, ANNOTATION_ENGINE
from hekla.platform.api.meta import Json
from hekla.platform.api.podtemplate import engine_container
from hekla.platform.api.quantity import quantity_float

DRAIN_GRACE_DEFAULT_S = 30.0
"""Kubernetes' own default of terminationGracePeriodSeconds."""

CPU_DEFAULT = 1.0
"""Cores of an engine that asks for nothing at all: an empty bundle can't be placed."""

RAY_RESOURCES = {"cpu": "CPU", "memory": "memory", "nvidia.com/gpu": "GPU", "amd.com/gpu": "GPU"}
NOT_SCHEDULED = frozenset({"ephemeral-storage"})
"""Resources that Ray keeps no count of."""

_ENGINES: dict[str, EngineType] = {
    "vllm": "vLLM", "sglang": "SGLang", "simulated": "Simulated", "hekla-sim": "Simulated", "command": "Command",
}  # fmt: skip
_ROLES: dict[str, EngineRole] = {"prefill": "prefill", "decode": "decode", "encode": "encode"}
_KV_ROLES: dict[str, EngineRole] = {"kv_producer": "prefill", "kv_consumer": "decode"}
_VARIABLE = re.compile(r"\$(\$)?\(([A-Za-z_][A-Za-z0-9_]*)\)")


@dataclass(frozen=True)
class Reading:
    """One engine as the planner and the supervisor see it."""

    launch: EngineLaunch
    resources: Mapping[str, float]
    """What its bundle holds, in Ray's names and units."""


@dataclass(frozen=True)
class Place:
    """Which engine of which role replica is read."""

    namespace: str
    name: str
    role: str
    group_size: int
    index: int


def read_engine(template: Json, place: Place) -> Reading:
    """The engine that a pod template means at `place`; the template has been admitted."""
    pod, container = template["spec"], engine_container(template["spec"])
    env = _plain_env(container, place)
    command = [_expanded(part, env) for part in container.get("command") or ()]
    args = [_expanded(part, env) for part in container.get("args") or ()]
    engine = _engine_type(template, container, command)
    parsed = parse_command(engine, command, args)
    resources = _resources(container)
    launch = EngineLaunch(
        name=place.name,
        namespace=place.namespace,
        engine=engine,
        role=_role(place, parsed),
        model_uri=parsed.model_uri,
        cache_uri=_mark(template, ANNOTATION_CACHE),
        served_model_name=parsed.served_model_name,
        command=parsed.command,
        args=parsed.args,
        env=env,
        port=parsed.port or _container_port(container),
        cpus=resources.get("CPU", CPU_DEFAULT),
        group_size=place.group_size,
        worker_index=place.index,
        drain_grace_s=float(pod.get("terminationGracePeriodSeconds") or DRAIN_GRACE_DEFAULT_S),
    )
    return Reading(launch, resources)


def with_entry_address(launch: Json, address: str, entry_actor: str) -> Json:
    """The launch once the entry's node is known: `$(ENTRY_ADDRESS)` is replaced and set."""
    env = {**launch.get("env", {}), "ENTRY_ADDRESS": address}
    known = {"ENTRY_ADDRESS": address}
    return {
        **launch,
        "entryActor": entry_actor,
        "env": {key: _expanded(value, known) for key, value in env.items()},
        "command": [_expanded(part, known) for part in launch.get("command", ())],
        "args": [_expanded(part, known) for part in launch.get("args", ())],
    }


def _mark(template: Json, key: str) -> str:
    meta = template.get("metadata") or {}
    for place in ("annotations", "labels"):
        if value := (meta.get(place) or {}).get(key):
            return str(value)
    return ""


def _engine_type(template: Json, container: Json, command: list[str]) -> EngineType:
    """An explicit mark wins, then the command, then the image; a command that names no engine runs as it is."""
    marked = _mark(template, ANNOTATION_ENGINE).lower()
    if marked in _ENGINES:
        return _ENGINES[marked]
    spoken = " ".join(command).lower()
    for text in (spoken, "" if spoken else str(container.get("image", "")).lower()):
        for word in ("hekla-sim", "simengine", "sglang", "vllm"):
            if word in text:
                return _ENGINES.get(word, "Simulated")
    return "Command" if spoken else "vLLM"


def _role(place: Place, parsed: ParsedCommand) -> EngineRole:
    if place.index > 0:
        return "worker"
    return _ROLES.get(place.role) or _KV_ROLES.get(kv_role(parsed.all_args), "server")


def _plain_env(container: Json, place: Place) -> dict[str, str]:
    """Values as written, earlier ones expanded in later ones; hekla's own win over the manifest's, as Kthena's do."""
    env: dict[str, str] = {}
    own = {"GROUP_SIZE": str(place.group_size), "WORKER_INDEX": str(place.index)}
    for entry in container.get("env") or ():
        if "valueFrom" not in entry:
            env[entry["name"]] = _expanded(str(entry.get("value") or ""), {**own, **env})
    return {**env, **own}


def _expanded(text: str, env: Mapping[str, str]) -> str:
    """`$(NAME)` becomes its value, `$$(NAME)` the literal `$(NAME)`; unknown names stay, as on Kubernetes."""

    def value(match: re.Match[str]) -> str:
        escaped, name = match.groups()
        return match[0][1:] if escaped else env.get(name, match[0])

    return _VARIABLE.sub(value, text)


def _resources(container: Json) -> dict[str, float]:
    """Requests, and limits where no request is given, in Ray's names; amounts of zero are left out."""
    asked = container.get("resources") or {}
    amounts: dict[str, float] = {}
    for name, amount in {**(asked.get("limits") or {}), **(asked.get("requests") or {})}.items():
        if name not in NOT_SCHEDULED and (number := quantity_float(amount)) > 0:
            ray_name = _ray_resource(name)
            amounts[ray_name] = amounts.get(ray_name, 0.0) + number
    return amounts or {"CPU": CPU_DEFAULT}


def _ray_resource(name: str) -> str:
    if name.startswith("huawei.com/Ascend"):
        return "NPU"
    return RAY_RESOURCES.get(name, name)


def _container_port(container: Json) -> int:
    ports = container.get("ports") or ()
    return int(ports[0]["containerPort"]) if ports else 0
