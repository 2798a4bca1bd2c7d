"""`hekla up` and `hekla down`: each step can be repeated; a second `up` finds everything there and changes nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from hekla.platform.base.errors import Permanent
from hekla.platform.root import ray_link
from hekla.platform.root.identity_settings import identity_settings
from hekla.platform.root.platform_actor import find_platform_actor, start_platform_actor
from hekla.platform.root.ray_processes import RayHead, processes_of, start_local_ray, stop_local_ray
from hekla.platform.root.settings import ClusterFile, PlatformSettings
from hekla.platform.sdk.address import ADMIN_KEY_FILE

READY_TIMEOUT_S = 120.0
"""Longest wait for the endpoint's first answer: a loaded two-core machine needs half of it."""

OPEN_DOOR = (
    "WARNING: OTHER MACHINES CAN REACH THIS ENDPOINT, AND NO KEY IS ASKED FOR: whoever can connect may use every model and "
    "change or delete everything. Set auth: hekla down, then hekla up --auth required (docs/identity.md)"
)

Report = Callable[[str], None]
"""Told of each step as it begins, for people who wait."""


@dataclass(frozen=True)
class RayOptions:
    address: str = ""
    """Ray cluster to join, `host:port` or `auto`; empty starts one here."""
    num_cpus: int | None = None
    dashboard: bool = True


def up(settings: PlatformSettings, ray_options: RayOptions, report: Report) -> ClusterFile:
    """Bring the platform up, or find it up, and return where it is.

    Raises Permanent when the port is taken, the given cluster is another one than the running, or nothing answers in time.
    """
    identity_settings(settings)  # a mistake in them is told before anything starts
    home = settings.home_path
    known = ClusterFile.read(home)
    if known is not None and _answers(known.endpoint):
        _refuse_another_ray(known, ray_options)
        other = "" if known.endpoint == settings.endpoint else "; for other settings: `hekla down`, then `hekla up`"
        report(f"already up at {known.endpoint}{other}")
        return known
    if known is not None and not _is_alive(known):
        _clear_away(known, home, report)
        known = None
    if known is None:
        _refuse_taken_port(settings)
        known = _begin(settings, ray_options, home, report)
    else:
        _refuse_another_ray(known, ray_options)
        known = replace(known, endpoint=settings.endpoint)
        known.write(home)
    ray_link.connect(known.ray_address, settings.ray_namespace)
    try:
        report("starting the platform (store, controllers, resource API)")
        actor = start_platform_actor(settings, ray_link.head_node_id())
        ray_link.wait_for_platform(actor)
        report(f"starting the ingress ({settings.ingress_replicas} replicas, data plane {settings.data_plane})")
        ray_link.start_ingress(settings)
    finally:
        ray_link.disconnect()
    report("waiting for the endpoint to answer")
    _await_endpoint(known)
    if settings.auth == "off" and settings.is_open_to_others:
        report(OPEN_DOOR)
    elif settings.auth != "off":
        report(f"callers need keys (auth {settings.auth}); yours is in {home / ADMIN_KEY_FILE} on the head node")
    report(f"ready at {known.endpoint}")
    return known


def _refuse_another_ray(known: ClusterFile, options: RayOptions) -> None:
    if options.address not in ("", known.ray_address):
        raise Permanent(f"hekla is already up on Ray {known.ray_address}; `hekla down` first to move it")


def _clear_away(known: ClusterFile, home: Path, report: Report) -> None:
    """What a Ray of ours that crashed left behind is of no use: objects are in the store."""
    if known.cluster_id:
        report("clearing away what is left of a Ray that died")
        stop_local_ray(known.cluster_id, Path(known.temp_dir))
    ClusterFile.remove(home)


def _begin(settings: PlatformSettings, options: RayOptions, home: Path, report: Report) -> ClusterFile:
    endpoint = settings.endpoint
    if options.address:
        report(f"joining Ray at {options.address}")
        if not _may_answer(options.address):
            raise Permanent(f"no Ray cluster answers at {options.address}")
        found = ClusterFile(endpoint=endpoint, ray_address=options.address, ray_namespace=settings.ray_namespace)
    else:
        report("starting Ray")
        head = _start_ray(settings, options, home)
        found = ClusterFile(
            endpoint=endpoint,
            ray_address=head.address,
            ray_namespace=settings.ray_namespace,
            cluster_id=head.cluster_id,
            temp_dir=str(head.temp_dir),
            dashboard=head.dashboard_url or "",
        )
    # Written before anything else can fail, so that `hekla down` always finds what was started.
    found.write(home)
    return found


def _start_ray(settings: PlatformSettings, options: RayOptions, home: Path) -> RayHead:
    return start_local_ray(
        home,
        num_cpus=options.num_cpus,
        node_ip="127.0.0.1",
        dashboard=options.dashboard,
        env=settings.serve_environment,
    )


def down(home: Path, report: Report) -> list[str]:
    """Stop everything that `up` started here; returns what could not be cleaned. No error when nothing is up.

    A Ray that `up` joined goes on; only hekla's actors, placement groups and Serve application leave it. Objects stay in
    the store: the next `up` serves them again (`hekla down --purge` forgets them).
    """
    known = ClusterFile.read(home)
    if known is None:
        report("nothing is up")
        return []
    left: list[str] = []
    if _is_alive(known):
        try:
            _leave_cluster(known, report)
        except Exception as error:  # noqa: BLE001 -- whatever is broken there
            # A half-dead cluster of ours must not keep `down` from removing what it can by process id.
            report(f"could not stop hekla gently: {error}")
            left = [] if known.cluster_id else [_unreachable(known, home)]
    if known.cluster_id:
        report("stopping Ray")
        left = stop_local_ray(known.cluster_id, Path(known.temp_dir))
    if known.cluster_id or not left:
        ClusterFile.remove(home)
    report("down" if not left else "down, but something stayed behind")
    return left


def _unreachable(known: ClusterFile, home: Path) -> str:
    """A Ray that is not ours is not killed; the file stays, so that `down` can be repeated."""
    return f"hekla on Ray {known.ray_address} (if that Ray is gone, remove {home / 'cluster.json'})"


def _leave_cluster(known: ClusterFile, report: Report) -> None:
    ray_link.connect(known.ray_address, known.ray_namespace)
    try:
        report("stopping the ingress")
        ray_link.stop_ingress(known.ray_namespace)
        actor = find_platform_actor(known.ray_namespace)
        if actor is not None:
            report("stopping engines and controllers")
            ray_link.shut_down_platform(actor)
    finally:
        ray_link.disconnect()


def _is_alive(known: ClusterFile) -> bool:
    """Does the Ray that the file names still answer? One whose head is dead can't be used, whatever else of it runs."""
    if known.cluster_id and not processes_of(known.cluster_id):
        return False
    return _may_answer(known.ray_address)


def _may_answer(ray_address: str) -> bool:
    """False when nothing listens there; `auto` and the like can't be told before Ray is asked."""
    host, _, port = ray_address.rpartition(":")
    return not port.isdigit() or _connects(host.strip("[]"), int(port))


def _connects(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def _refuse_taken_port(settings: PlatformSettings) -> None:
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host
    if _connects(host, settings.port):
        raise Permanent(f"port {settings.port} on {host} is taken by another program; choose one with --port")


def _answers(endpoint: str) -> bool:
    try:
        health = httpx.get(f"{endpoint}/health", timeout=5.0)
        # With authentication on, a refusal is the ingress's answer to a caller without a key: it is there and has its keys.
        answered = httpx.get(f"{endpoint}/hekla/v1/status", timeout=5.0).status_code
        return health.status_code == 200 and answered in (200, 401)
    except httpx.HTTPError:
        return False


def _await_endpoint(known: ClusterFile) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not _answers(known.endpoint):
        if time.monotonic() > deadline:
            logs = f"{known.temp_dir or '<temp dir of that Ray>'}/session_latest/logs"
            raise Permanent(f"{known.endpoint} did not answer within {READY_TIMEOUT_S:.0f} s; logs are in {logs}")
        time.sleep(0.1)
