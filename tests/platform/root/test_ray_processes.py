"""A local Ray comes and goes without a trace, and nothing of anyone else's is touched."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hekla.platform.base.errors import Permanent
from hekla.platform.root.process_table import CLUSTER_VARIABLE, processes_of, shared_memory_of
from hekla.platform.root.ray_processes import RayHead, start_local_ray, stop_local_ray

OBJECT_STORE_BYTES = 80 << 20

DRIVER = """
import asyncio, sys
import ray
from hekla.platform.cluster.ray_cluster import RayCluster
from hekla.platform.cluster.ray_private import allow_loopback

allow_loopback(sys.argv[1])
ray.init(address=sys.argv[1], namespace="hekla", log_to_driver=False)
[node] = asyncio.run(RayCluster().nodes())
print(node.address, node.total["CPU"], node.is_head)
"""

HIDING = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={})
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def sleeper() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python programs in a marked environment; ends them at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(
        cluster_id: str, program: str = "import time; print(0, flush=True); time.sleep(600)"
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, CLUSTER_VARIABLE: cluster_id},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_process_belongs_to_the_cluster_that_its_environment_names(
    sleeper: Callable[..., subprocess.Popen[str]],
) -> None:
    mine, other, longer = sleeper("test-a"), sleeper("test-b"), sleeper("test-a2")
    for process in (mine, other, longer):
        first_line(process)
    assert processes_of("test-a") == [mine.pid]
    assert processes_of("test-b") == [other.pid]
    assert processes_of("test-none") == []


def test_a_child_that_hid_its_environment_belongs_to_its_parents_cluster(
    sleeper: Callable[..., subprocess.Popen[str]],
) -> None:
    parent = sleeper("test-c", HIDING)
    child = int(first_line(parent))
    assert processes_of("test-c") == sorted([parent.pid, child])


def test_stopping_ends_the_cluster_and_its_children_and_leaves_others_alone(
    sleeper: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    parent, other = sleeper("test-d", HIDING), sleeper("test-e")
    first_line(parent)
    first_line(other)
    folder = tmp_path / "ray"
    folder.mkdir()
    (folder / "session").write_text("x")
    assert stop_local_ray("test-d", folder) == []
    assert processes_of("test-d") == []
    assert not folder.exists()
    assert other.poll() is None


def test_a_process_that_ignores_the_request_is_ended(
    sleeper: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    stubborn = sleeper(
        "test-f", "import signal, time; signal.signal(15, signal.SIG_IGN); print(0, flush=True); time.sleep(600)"
    )
    first_line(stubborn)
    assert stop_local_ray("test-f", tmp_path / "none") == []
    assert not psutil.pid_exists(stubborn.pid)


def test_stopping_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    assert stop_local_ray("test-nothing", tmp_path / "none") == []


@pytest.mark.ray
def test_a_ray_that_can_not_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match=r"Ray did not start[\s\S]*object store"):
        start_local_ray(tmp_path, object_store_bytes=1000, cluster_id="test-bad", dashboard=False)
    assert processes_of("test-bad") == []


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_a_local_ray_starts_serves_and_stops_twice_without_a_trace(tmp_path: Path) -> None:
    for turn, dashboard in enumerate((True, False)):
        head = start_local_ray(
            tmp_path,
            num_cpus=3,
            object_store_bytes=OBJECT_STORE_BYTES,
            dashboard=dashboard,
            env={"HEKLA_TEST_TURN": str(turn)},
        )
        try:
            check_running(head, dashboard)
        finally:
            pids = processes_of(head.cluster_id)
            shared = shared_memory_of(pids)
            left = stop_local_ray(head.cluster_id, head.temp_dir)
        assert left == []
        assert pids
        assert not [pid for pid in pids if is_alive(pid)]
        assert not head.temp_dir.exists()
        assert not [path for path in shared if path.exists()]
        assert not connects(head.address)


def check_running(head: RayHead, dashboard: bool) -> None:
    assert connects(head.address)
    assert (head.dashboard_url is not None) == dashboard
    if head.dashboard_url is not None:
        assert connects(head.dashboard_url.removeprefix("http://"))
    ran = subprocess.run(
        [sys.executable, "-c", DRIVER, head.address], capture_output=True, text=True, timeout=90, check=False
    )
    assert ran.stdout.strip() == "127.0.0.1 3.0 True", ran.stderr
    assert not listening_beyond_loopback(head.cluster_id)


def listening_beyond_loopback(cluster_id: str) -> list[str]:
    """Listening sockets of the cluster that other machines could reach."""
    found = []
    for pid in processes_of(cluster_id):
        try:
            connections = psutil.Process(pid).net_connections(kind="tcp")
        except psutil.Error:
            continue
        found += [
            f"{pid} {one.laddr.ip}:{one.laddr.port}"
            for one in connections
            if one.status == psutil.CONN_LISTEN and one.laddr.ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
        ]
    return found


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def connects(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1.0).close()
    except OSError:
        return False
    return True
