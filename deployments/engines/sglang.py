"""SGLang: the usual command. Pure."""

from __future__ import annotations

from hekla.deployments.engines.flags import with_default, with_flag
from hekla.deployments.engines.kv_events import with_own_endpoint
from hekla.deployments.engines.plan import Plan, Site, group_env
from hekla.deployments.launch import EngineLaunch

MODULE = "sglang.launch_server"


def plan(launch: EngineLaunch, site: Site) -> Plan:
    args = list(launch.args)
    if site.model:
        args = with_flag(args, "--model-path", site.model)
    if launch.served_model_name:
        args = with_default(args, "--served-model-name", launch.served_model_name)
    args = with_flag(with_flag(args, "--host", site.node_ip), "--port", str(site.port))
    # Its metrics are off unless asked for, and the router reads them.
    args = args if "--enable-metrics" in args else [*args, "--enable-metrics"]
    if launch.role in ("prefill", "decode"):
        args = with_default(args, "--disaggregation-mode", launch.role)
    bootstrap_port = site.spare_ports[0] if launch.role == "prefill" else 0
    if bootstrap_port:
        args = with_flag(args, "--disaggregation-bootstrap-port", str(bootstrap_port))
    args, events = with_own_endpoint(args, site)
    env = {**group_env(launch, site), "DO_NOT_TRACK": "1"}
    if site.model:
        env["HF_HUB_OFFLINE"] = "1"
    env |= launch.env
    return Plan([site.python, "-m", MODULE, *args], env, events.published, events.replay, bootstrap_port)
