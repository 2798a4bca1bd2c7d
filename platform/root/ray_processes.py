"""A Ray cluster of our own on this machine, started and stopped without touching any other.

`ray stop` ends every Ray on the machine; here each process carries the cluster's id in its environment and is found by
it. The cluster listens on the loopback interface only, takes no fixed port, and keeps its files in a folder of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from hekla.platform.base.clock import Clock, SystemClock
from hekla.platform.base.errors import Permanent
from hekla.platform.base.ids import SystemIds
from hekla.platform.root.process_table import CLUSTER_VARIABLE, all_pids, processes_of, shared_memory_of

__all__ = ["RayHead", "processes_of", "start_local_ray", "stop_local_ray"]

OBJECT_STORE_BYTES = 300 * 10**6
"""Ray takes 30 % of the memory by default; hekla sends no large objects through it."""

START_TIMEOUT_S = 180.0
"""A loaded two-core machine needs 30 s; `ray start` itself gives up earlier when a part does not come up."""

TERM_GRACE_S = 3.0
"""Between asking a process to end and ending it: Ray's own take 1 to 2 s, or, its head and its environment agent when
all are asked at once, for ever."""

STOP_TIMEOUT_S = 30.0

_POLL_S = 0.1
_ERROR_CHARS_MAX = 2000
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class RayHead:
    address: str
    """`host:port` of the cluster's head, for `ray.init`."""
    temp_dir: Path
    cluster_id: str
    dashboard_url: str | None = None


def start_local_ray(
    home: Path,
    *,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    object_store_bytes: int = OBJECT_STORE_BYTES,
    node_ip: str = "127.0.0.1",
    dashboard: bool = True,
    env: Mapping[str, str] | None = None,
    cluster_id: str = "",
) -> RayHead:
    """Start Ray's head node and return when it is up; its own words are in `home/ray-start.log`.

    `env` is added to the environment of every process of the cluster. `cluster_id` is made up when empty. Raises
    Permanent, with nothing left behind, when Ray does not come up.
    """
    cluster_id = cluster_id or SystemIds().uid()[:8]
    home.mkdir(parents=True, exist_ok=True)
    # Ray puts sockets below it, and a socket's path may have 107 characters: not below home.
    temp_dir = Path(tempfile.mkdtemp(prefix=f"hekla-{cluster_id}-"))
    port = _free_port() if dashboard else 0
    command = _command(temp_dir, node_ip, port, object_store_bytes)
    command += [] if num_cpus is None else [f"--num-cpus={num_cpus}"]
    command += [] if num_gpus is None else [f"--num-gpus={num_gpus}"]
    log = home / "ray-start.log"
    try:
        _run_to_end(command, _environment(cluster_id, node_ip, temp_dir, env or {}), home, log)
        address = (temp_dir / "ray_current_cluster").read_text().strip()
    except BaseException as error:
        stop_local_ray(cluster_id, temp_dir)
        if isinstance(error, OSError | subprocess.SubprocessError):
            raise Permanent(f"Ray did not start: {error}\n{_tail(log)}") from error
        raise
    return RayHead(address, temp_dir, cluster_id, f"http://127.0.0.1:{port}" if dashboard else None)


def _command(temp_dir: Path, node_ip: str, dashboard_port: int, object_store_bytes: int) -> list[str]:
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--disable-usage-stats"),
        f"--node-ip-address={node_ip}",
        f"--temp-dir={temp_dir}",
        f"--object-store-memory={object_store_bytes}",
        # 0: each part binds a free port and tells the others. Ray's own ranges are fixed, so two clusters would clash.
        *(f"--{name}=0" for name in ("port", "min-worker-port", "max-worker-port", "dashboard-agent-listen-port")),
        f"--include-dashboard={bool(dashboard_port)}",
        *((f"--dashboard-port={dashboard_port}", "--dashboard-host=127.0.0.1") if dashboard_port else ()),
    ]


def _environment(cluster_id: str, node_ip: str, temp_dir: Path, extra: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_JOB_ID")}
    if node_ip in _LOOPBACK:
        # Ray replaces a loopback address by the machine's outer one and then listens on every interface, unless it is
        # told to behave as on a Mac. Nobody but this machine may reach a Ray without authentication.
        inherited["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    return {
        **inherited,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        # Otherwise Ray rebuilds the caller's `uv run` environment for each worker.
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_raylet_start_wait_time_s": "120",
        # Ray runs its workers at nice 15; engines and the ingress are what this machine is for.
        "RAY_worker_niceness": "0",
        **haproxy_environment(temp_dir),
        # Engines' locks and temporary files, so that they go with the cluster's.
        "HEKLA_RUN_DIR": str(temp_dir / "engines"),
        "RAY_START_HOOK": "hekla.platform.root.ray_start_hook.without_client_server",
        **extra,
        CLUSTER_VARIABLE: cluster_id,
    }


def haproxy_environment(temp_dir: Path) -> dict[str, str]:
    """Serve's HAProxy, should it run, keeps its files with the cluster's, and its side ports clash with nobody's."""
    # Short: Serve adds a folder named by 56 hex digits, and HAProxy takes socket paths of 97 characters at most.
    folder = temp_dir / "h"
    paths = {
        "CONFIG_FILE_LOC": folder / "haproxy.cfg",
        "SOCKET_PATH": folder / "a",
        "SERVER_STATE_BASE": folder,
        "SERVER_STATE_FILE": folder / "server-state",
        "METRICS_SOCKET_PATH": folder / "m",
    }
    ports = {name: _free_port() for name in ("METRICS_PORT", "STATS_PORT")}
    return {f"RAY_SERVE_HAPROXY_{name}": str(value) for name, value in (paths | ports).items()}


def _run_to_end(command: Sequence[str], env: Mapping[str, str], folder: Path, log: Path) -> None:
    """Run it in a session of its own, so that Ctrl-C in the terminal does not reach the cluster."""
    # A file, not a pipe: the daemons inherit it and would hold a pipe open for ever.
    with log.open("wb") as output:
        subprocess.run(
            command,
            env=dict(env),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            timeout=START_TIMEOUT_S,
            check=True,
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-_ERROR_CHARS_MAX:] if log.exists() else ""


def stop_local_ray(cluster_id: str, temp_dir: Path, *, clock: Clock | None = None) -> list[str]:
    """End exactly this cluster's processes and remove its files; returns, in words, what could not be cleaned.

    Can be repeated, and works on a half-dead cluster. Takes up to `STOP_TIMEOUT_S`.
    """
    clock = clock or SystemClock()
    begun = clock.monotonic()
    shared: set[Path] = set()
    asked: set[int] = set()
    # Processes start others while they end, so look again until none is left.
    while pids := processes_of(cluster_id):
        waited = clock.monotonic() - begun
        if waited > STOP_TIMEOUT_S:
            break
        shared |= shared_memory_of(pids)
        if waited > TERM_GRACE_S:
            _signal(pids, signal.SIGKILL)
        else:
            _signal([pid for pid in pids if pid not in asked], signal.SIGTERM)
            asked.update(pids)
        _await_end(pids)
    shutil.rmtree(temp_dir, ignore_errors=True)
    for path in shared - shared_memory_of(all_pids()):
        path.unlink(missing_ok=True)
    return [
        *(f"process {pid} is still running" for pid in processes_of(cluster_id)),
        *(f"{path} could not be removed" for path in (temp_dir, *sorted(shared)) if path.exists()),
    ]


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def _await_end(pids: Sequence[int]) -> None:
    """Until all have ended or a moment has passed."""
    living = []
    for pid in pids:
        try:
            living.append(psutil.Process(pid))
        except psutil.NoSuchProcess:
            pass
    psutil.wait_procs(living, timeout=_POLL_S)
