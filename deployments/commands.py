"""From a launch to the process to start: picks the engine's file. Pure."""

from __future__ import annotations

from dataclasses import replace

from hekla.deployments.command_line import is_fetched, parse_command
from hekla.deployments.engines import command, sglang, simulated, vllm
from hekla.deployments.engines.plan import Plan, Planner, Site
from hekla.deployments.launch import EngineLaunch, EngineType
from hekla.platform.base.errors import Permanent

PLANNERS: dict[EngineType, Planner] = {
    "vLLM": vllm.plan,
    "SGLang": sglang.plan,
    "Simulated": simulated.plan,
    "Command": command.plan,
}


def understood(launch: EngineLaunch) -> EngineLaunch:
    """The launch with a known engine's command taken apart: model, served name and arguments in their own fields."""
    parsed = parse_command(launch.engine, launch.command, launch.args)
    served = launch.served_model_name or parsed.served_model_name
    model = launch.model_uri or parsed.model_uri
    return launch.model_copy(
        update={
            "command": parsed.command,
            "args": parsed.args,
            "model_uri": model,
            "served_model_name": served or _name_of(model),
        }
    )


def model_to_fetch(launch: EngineLaunch) -> str:
    """URI of the weights to bring to this node; empty when the engine needs none or finds them itself."""
    return "" if launch.engine == "Simulated" else launch.model_uri


def plan_process(launch: EngineLaunch, site: Site) -> Plan:
    """What to start for an `understood` launch. Raises Permanent when it says nothing that can be run."""
    planned = _plan(launch, site)
    return replace(planned, env={"TMPDIR": site.scratch, **planned.env}) if site.scratch else planned


def _plan(launch: EngineLaunch, site: Site) -> Plan:
    if not launch.command:
        if launch.engine == "Command":
            raise Permanent("command: is empty; an engine of type Command has to say which program to run")
        return PLANNERS[launch.engine](launch, site)
    plan = command.plan(launch, site)
    if launch.engine == "Command":
        return plan
    # A script around a known engine: as given, with the environment that the engine needs here.
    known = PLANNERS[launch.engine](launch.model_copy(update={"command": []}), site)
    return replace(plan, env={**known.env, **plan.env})


def _name_of(model: str) -> str:
    """What clients call a model that is served from a folder: `hf://org/name` is `org/name`."""
    scheme, found, rest = model.partition("://")
    if not model or not is_fetched(model):
        return ""
    if found and scheme in ("hf", "ms"):
        return rest.strip("/")
    return model.rstrip("/").rpartition("/")[2].removesuffix(".gguf")
