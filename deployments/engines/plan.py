"""How an engine is started: the nouns that the engine files and the supervisor share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from hekla.deployments.launch import EngineLaunch


@dataclass(frozen=True)
class Site:
    """What the supervisor found on its node for this engine. Everything an engine file may depend on."""

    node_ip: str
    port: int
    """Free port for the OpenAI server."""
    spare_ports: tuple[int, ...]
    """Free ports for side channels: the first for KV transfer, the second and third for KV events and their replay."""
    python: str
    """The interpreter that has the engine installed."""
    model: str
    """Folder of the fetched weights; empty when nothing was fetched."""
    cores: tuple[int, ...] = ()
    """CPU cores that are this engine's alone; empty: none could be claimed."""
    has_accelerator: bool = False
    scratch: str = ""
    """The engine's own temporary folder, gone when it is; empty: the machine's."""


@dataclass(frozen=True)
class Plan:
    """The process to start."""

    argv: list[str]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the supervisor's own environment; the manifest's values have won already."""
    kv_events: str = ""
    """ZMQ endpoint to report; empty when the engine publishes none."""
    kv_replay: str = ""
    """Where past KV events are had again; empty: nowhere, or only the engine knows."""
    bootstrap_port: int = 0
    """Where a prefill engine tells decode engines how to fetch its KV; 0: it has no such server."""


class Planner(Protocol):
    """One engine type's part: pure."""

    def __call__(self, launch: EngineLaunch, site: Site) -> Plan: ...


def core_threads(launch: EngineLaunch) -> int:
    """Threads that an engine on CPU should run: whole cores asked for, at least one."""
    return max(1, int(launch.cpus))


def group_env(launch: EngineLaunch, site: Site) -> dict[str, str]:
    """What a member of a multi-node group learns; a worker's ENTRY_ADDRESS comes with its launch."""
    env = {"GROUP_SIZE": str(launch.group_size), "WORKER_INDEX": str(launch.worker_index), "PORT": str(site.port)}
    if launch.worker_index == 0:
        env["ENTRY_ADDRESS"] = site.node_ip
    return env
