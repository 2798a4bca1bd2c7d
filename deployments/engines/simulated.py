"""The simulated engine: one more engine with vLLM's flags. Its model is a name; nothing is fetched. Pure."""

from __future__ import annotations

from hekla.deployments.engines.flags import with_default, with_flag
from hekla.deployments.engines.kv_events import with_events
from hekla.deployments.engines.plan import Plan, Site, group_env
from hekla.deployments.launch import EngineLaunch

MODULE = "hekla.deployments.simengine"


def plan(launch: EngineLaunch, site: Site) -> Plan:
    args = list(launch.args)
    if model := launch.model_uri or launch.served_model_name:
        args = with_default(args, "--model", model)
    if launch.served_model_name:
        args = with_default(args, "--served-model-name", launch.served_model_name)
    args = with_flag(with_flag(args, "--host", site.node_ip), "--port", str(site.port))
    args, events = with_events(args, launch, site)
    env = {**group_env(launch, site), **launch.env}
    return Plan([site.python, "-m", MODULE, *args], env, events.published, events.replay)
