"""vLLM: the usual command, and what makes it work beside other engines on one node. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hekla.deployments.engines.flags import has_flag, json_flag, taken_apart, with_default, with_flag
from hekla.deployments.engines.kv_events import with_events
from hekla.deployments.engines.plan import Plan, Site, core_threads, group_env
from hekla.deployments.launch import EngineLaunch

MODULE = "vllm.entrypoints.openai.api_server"
SERVE = ("vllm.entrypoints.cli.main", "serve")
"""`vllm serve`: slower to start, and the only form that knows of engines without an HTTP server."""

SERVE_FLAGS = ("--headless", "--api-server-count", "-asc")
ENABLE_LORA = "--enable-lora"
KV_TRANSFER = "--kv-transfer-config"
BOOTSTRAP_PORT = "VLLM_MOONCAKE_BOOTSTRAP_PORT"

CPU_KV_CACHE_GIB = "1"
"""Without an accelerator vLLM would take a large share of the node's memory; a manifest's own value wins."""

POLLED_PAGES = "/health,/metrics,/v1/models"
"""Asked for every few seconds for as long as the engine lives; its log is for what matters."""


def plan(launch: EngineLaunch, site: Site) -> Plan:
    args = list(launch.args)
    if site.model:
        args = with_flag(args, "--model", site.model)
    if launch.served_model_name:
        args = with_default(args, "--served-model-name", launch.served_model_name)
    args = with_flag(with_flag(args, "--host", site.node_ip), "--port", str(site.port))
    args = with_default(args, "--disable-access-log-for-endpoints", POLLED_PAGES)
    args, events = with_events(_kv_transfer_on(site, args), launch, site)
    env = _env(launch, site, args)
    if events.any_port:
        env = {"VLLM_HOST_IP": site.node_ip, **env}  # where its ranks take their ports
    port = _bootstrap_port(args, env)
    return Plan([site.python, "-m", *_program(args)], env, events.published, events.replay, port)


def _program(args: list[str]) -> list[str]:
    """The module and its arguments: `MODULE` passes over `--headless` and would start a second entry."""
    if not any(has_flag(args, flag) for flag in SERVE_FLAGS):
        return [MODULE, *args]
    # Its model is the first word, not a flag's value.
    model, rest = taken_apart(args, "--model")
    return [*SERVE, *model, *rest]


def _kv_transfer_on(site: Site, args: list[str]) -> list[str]:
    """NIXL moves KV through host memory where there is no accelerator; vLLM assumes CUDA unless told."""
    config = json_flag(args, KV_TRANSFER)
    if site.has_accelerator or not _uses_nixl(config) or "kv_buffer_device" in config:
        return args
    return with_flag(args, KV_TRANSFER, json.dumps({**config, "kv_buffer_device": "cpu"}))


def _uses_nixl(config: dict[str, object]) -> bool:
    """Also when a MultiConnector lists it."""
    return "nixl" in json.dumps(config).lower()


def _uses_mooncake(config: dict[str, object]) -> bool:
    return "mooncakeconnector" in json.dumps(config).lower()


def _bootstrap_port(args: list[str], env: Mapping[str, str]) -> int:
    """Mooncake's, on every engine that can hand over; 0 on others."""
    config, port = json_flag(args, KV_TRANSFER), env.get(BOOTSTRAP_PORT, "")
    return int(port) if _uses_mooncake(config) and config.get("kv_role") != "kv_consumer" and port.isdigit() else 0


def _env(launch: EngineLaunch, site: Site, args: list[str]) -> dict[str, str]:
    env = {**group_env(launch, site), "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if has_flag(args, ENABLE_LORA):
        env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    if site.scratch:
        env["VLLM_RPC_BASE_PATH"] = site.scratch
    if site.model:
        env["HF_HUB_OFFLINE"] = "1"
    if _uses_nixl(json_flag(args, KV_TRANSFER)):
        env["VLLM_NIXL_SIDE_CHANNEL_HOST"] = site.node_ip
        env["VLLM_NIXL_SIDE_CHANNEL_PORT"] = str(site.spare_ports[0])
    if _uses_mooncake(json_flag(args, KV_TRANSFER)):
        env[BOOTSTRAP_PORT] = str(site.spare_ports[0])
    if not site.has_accelerator:
        env |= _cpu_env(launch, site)
    return {**env, **launch.env}


def _cpu_env(launch: EngineLaunch, site: Site) -> dict[str, str]:
    env = {"VLLM_CPU_KVCACHE_SPACE": CPU_KV_CACHE_GIB}
    if site.cores:
        return {**env, "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, site.cores))}
    # Left to itself vLLM binds to the first cores of the node, the same ones in each engine.
    return {**env, "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(core_threads(launch))}
