"""KV events (ZMQ): the manifest's endpoint is moved to a free port, as two engines may share a node. Pure."""

from __future__ import annotations

import json

from hekla.deployments.engines.flags import json_flag, with_flag
from hekla.deployments.engines.plan import Site

FLAG = "--kv-events-config"


def with_own_endpoint(args: list[str], site: Site) -> tuple[list[str], str]:
    """The arguments and the endpoint to report; unchanged and empty when events are off."""
    config = json_flag(args, FLAG)
    if not config.get("enable_kv_cache_events"):
        return args, ""
    # A publisher of this kind listens only where its endpoint has a `*`; any other endpoint it connects to.
    config["endpoint"] = f"tcp://*:{site.spare_ports[1]}"
    if config.get("replay_endpoint"):
        config["replay_endpoint"] = f"tcp://*:{site.spare_ports[2]}"
    config.setdefault("publisher", "zmq")
    return with_flag(args, FLAG, json.dumps(config)), f"tcp://{site.node_ip}:{site.spare_ports[1]}"
