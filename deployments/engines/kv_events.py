"""KV events (ZMQ) of the engines hekla starts: on unless the manifest says otherwise, each at ports of its own. Pure.

What an engine caches is worth knowing to whoever routes to it, and telling costs it next to nothing. A replay endpoint
goes with the events, always: without it nobody could learn what was cached before they came to listen.
Off: `--kv-events-config '{"enable_kv_cache_events": false}'`, or an engine whose prefix cache is off.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from hekla.deployments.engines.flags import has_flag, json_flag, taken_apart, with_flag
from hekla.deployments.engines.plan import Site
from hekla.deployments.launch import EngineLaunch

FLAG = "--kv-events-config"
_PREFIX_CACHING, _NO_PREFIX_CACHING = "--enable-prefix-caching", "--no-enable-prefix-caching"
_RANKS = ("--data-parallel-size", "-dp")
_ANY_PORT = "tcp://*:0"
_FALSE = frozenset({"false", "0", "no"})


@dataclass(frozen=True)
class KvEvents:
    """Where an engine publishes, and where past events are had again; empty: nowhere."""

    published: str = ""
    replay: str = ""
    any_port: bool = False
    """Every data-parallel rank takes ports of its own, which the engine's `/kv_event_sources` tells."""


def with_events(args: list[str], launch: EngineLaunch, site: Site) -> tuple[list[str], KvEvents]:
    """As `with_own_endpoint`; events are switched on where the manifest does not mention them."""
    if not has_flag(args, FLAG) and launch.worker_index == 0 and _keeps_prefixes(args):
        args = with_flag(args, FLAG, json.dumps({"enable_kv_cache_events": True}))
    return with_own_endpoint(args, site)


def with_own_endpoint(args: list[str], site: Site) -> tuple[list[str], KvEvents]:
    """The arguments with free ports, as two engines may share a node, and what to report; unchanged when events are off."""
    config = json_flag(args, FLAG)
    if not config.get("enable_kv_cache_events") or config.get("publisher") == "null":
        return args, KvEvents()
    # A publisher of this kind listens only where its endpoint has a `*`; any other endpoint it connects to.
    found = _own_ports(args, site)
    config["endpoint"] = _ANY_PORT if found.any_port else _listening(found.published)
    config["replay_endpoint"] = _ANY_PORT if found.any_port else _listening(found.replay)
    config.setdefault("publisher", "zmq")
    return with_flag(args, FLAG, json.dumps(config)), found


def _own_ports(args: list[str], site: Site) -> KvEvents:
    host = f"[{site.node_ip}]" if ":" in site.node_ip else site.node_ip
    if _ranks(args) > 1:
        return KvEvents(f"tcp://{host}:0", any_port=True)
    return KvEvents(f"tcp://{host}:{site.spare_ports[1]}", f"tcp://{host}:{site.spare_ports[2]}")


def _listening(endpoint: str) -> str:
    return "tcp://*:" + endpoint.rpartition(":")[2]


def _keeps_prefixes(args: list[str]) -> bool:
    if has_flag(args, _NO_PREFIX_CACHING) or has_flag(args, "--headless"):
        return False
    value, _ = taken_apart(args, _PREFIX_CACHING)
    return not value or value[0].lower() not in _FALSE


def _ranks(args: list[str]) -> int:
    """Data-parallel engine cores behind one server."""
    for flag in _RANKS:
        value, _ = taken_apart(args, flag)
        if value and value[0].isdigit():
            return int(value[0])
    return 1
