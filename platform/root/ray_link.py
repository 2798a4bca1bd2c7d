"""Connecting this process to Ray, and hekla's applications on Ray Serve."""

from __future__ import annotations

import logging
from typing import Any

import ray
from ray import serve

from hekla.platform.base.errors import Permanent
from hekla.platform.cluster import ray_private
from hekla.platform.root.ingress_replica import IngressReplica
from hekla.platform.root.settings import PlatformSettings

HEALTH_PERIOD_S = 2.0
QUIET = {"enable_access_log": False, "log_level": "WARNING"}
"""Serve's own access log costs a third of the throughput; hekla writes its own."""
REASON_CHARS_MAX = 2000
PLATFORM_START_TIMEOUT_S = 90.0
PLATFORM_STOP_TIMEOUT_S = 90.0


def connect(address: str, ray_namespace: str) -> None:
    """Connect to the Ray cluster at `address` (`host:port`, or `auto` inside a job). Raises Permanent."""
    if ray.is_initialized():
        return
    ray_private.allow_loopback(address)
    try:
        ray.init(address=address, namespace=ray_namespace, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise Permanent(f"no Ray cluster answers at {address}: {error}") from error
    except (RuntimeError, ValueError) as error:
        # Another version of Ray or Python, an address that is none.
        raise Permanent(f"the Ray cluster at {address} can't be joined: {error}") from error


def disconnect() -> None:
    ray.shutdown()


def head_node_id() -> str:
    """Hex id of the node that keeps the store: the cluster's head."""
    for node in ray.nodes():
        if node["Alive"] and "node:__internal_head__" in node["Resources"]:
            return str(node["NodeID"])
    raise Permanent("the Ray cluster has no live head node")


def wait_for_platform(actor: Any) -> str:
    """The resource API's URL once the platform has started. Raises Permanent with the reason it could not."""
    try:
        return str(ray.get(actor.api_url.remote(), timeout=PLATFORM_START_TIMEOUT_S))
    except (ray.exceptions.RayError, TimeoutError) as error:
        raise Permanent(f"the platform actor did not start: {error}") from error


def shut_down_platform(actor: Any) -> None:
    """Stop engines and controllers, then the actor itself."""
    ray.get(actor.shut_down.remote(True), timeout=PLATFORM_STOP_TIMEOUT_S)
    ray.kill(actor)


def application_name(ray_namespace: str) -> str:
    return f"{ray_namespace}-ingress"


def start_ingress(settings: PlatformSettings) -> None:
    """Deploy (or update) the ingress and return when Serve says it runs. Raises Permanent."""
    direct = settings.data_plane == "direct"
    serve.start(
        proxy_location="Disabled" if direct else "EveryNode",
        http_options={"host": settings.host if direct else "0.0.0.0", "port": settings.port},
        logging_config=QUIET,
    )
    deployment = serve.deployment(IngressReplica if direct else serve.ingress()(IngressReplica)).options(
        name="ingress",
        num_replicas=settings.ingress_replicas,
        max_ongoing_requests=100_000,
        ray_actor_options={"num_cpus": 0},
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=settings.drain_s + 5.0,
        graceful_shutdown_wait_loop_s=0.1,
    )
    application: Any = deployment.bind(settings.to_json())
    route, name = (None if direct else "/"), application_name(settings.ray_namespace)
    try:
        serve.run(application, name=name, route_prefix=route, logging_config=QUIET)
    except RuntimeError as error:
        raise Permanent(f"the ingress did not start: {error}\n{_why_not(name)}") from error


def _why_not(application: str) -> str:
    """What Serve says of an application's deployments."""
    found = serve.status().applications.get(application)
    told = [found.message, *(one.message for one in found.deployments.values())] if found else []
    return "\n".join(message for message in told if message)[:REASON_CHARS_MAX]


def stop_ingress(ray_namespace: str) -> None:
    """Remove the ingress; Serve itself too when nothing else uses it."""
    applications = serve.status().applications
    name = application_name(ray_namespace)
    if name in applications:
        serve.delete(name)
    if not set(applications) - {name}:
        serve.shutdown()
