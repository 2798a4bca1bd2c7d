"""`hekla up`, `status`, `down`, twice in a row, and what they leave behind: nothing."""

from __future__ import annotations

import json
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(420)]

Hekla = Callable[..., Any]


def listening(pids: set[int] | None = None) -> set[tuple[str, int]]:
    """Addresses that somebody (or one of `pids`) listens on."""
    found = [c for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    return {(c.laddr.ip, c.laddr.port) for c in found if c.laddr and (pids is None or c.pid in pids)}


def temp_folders() -> set[str]:
    return set(os.listdir(tempfile.gettempdir()))


def running(cluster_id: str) -> set[int]:
    """Living processes that carry the cluster's mark."""
    found = set()
    for process in psutil.process_iter():
        try:
            if process.environ().get("HEKLA_CLUSTER") == cluster_id and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def home(hekla: Hekla, tmp_path: Path) -> Iterator[Path]:
    """A home whose platform is down in the end, whatever the test came to."""
    yield tmp_path / "home"
    hekla("down", "--home", str(tmp_path / "home"))


def test_up_status_down_twice_leave_nothing_behind(
    hekla: Hekla, free_port: Callable[[], int], simulated: Callable[..., Any], home: Path, tmp_path: Path
) -> None:
    port = free_port()
    manifest = tmp_path / "model.json"
    manifest.write_text(json.dumps(simulated("brief")))
    shared, folders = set(os.listdir("/dev/shm")), temp_folders()
    for _ in range(2):
        hekla("up", "--home", str(home), "--port", str(port), "--num-cpus", "2", "--apply", str(manifest))
        cluster = json.loads((home / "cluster.json").read_text())
        again = hekla("up", "--home", str(home), "--port", str(port))
        assert "already up" in again.stdout + again.stderr
        status = hekla("status", "-o", "json", HEKLA_HOME=str(home))
        assert json.loads(status.stdout)["totals"]["enginesReady"] == 1
        answer = httpx.post(
            f"http://127.0.0.1:{port}/v1/completions",
            json={"model": "brief", "prompt": "hi", "max_tokens": 2},
            timeout=30,
        )
        assert answer.status_code == 200
        ports = listening(running(cluster["cluster_id"]))
        assert ("127.0.0.1", port) in ports
        hekla("down", "--home", str(home))
        assert running(cluster["cluster_id"]) == set()
        assert listening() & ports == set()
        assert set(os.listdir("/dev/shm")) - shared == set()
        assert {name for name in temp_folders() - folders if re.search("hekla|ray|serve|haproxy", name)} == set()
        assert not (home / "cluster.json").exists()
    assert "nothing is up" in hekla("down", "--home", str(home)).stderr


def test_up_refuses_a_port_that_is_taken(hekla: Hekla, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = hekla("up", "--home", str(tmp_path), "--port", port, fails=1)
    assert f"port {port}" in refused.stderr
    assert not (tmp_path / "cluster.json").exists()


@pytest.mark.parametrize(("options", "said"), [
    (["--port", "70000"], "--port: 70000 is out of range; allowed is 1 to 65535"),
    (["--data-plane", "pigeon"], "choose one of direct, haproxy"),
    (["--ingress-replicas", "0"], "--ingress-replicas: 0 is out of range"),
])  # fmt: skip
def test_up_refuses_a_bad_setting_by_name(hekla: Hekla, tmp_path: Path, options: list[str], said: str) -> None:
    assert said in hekla("up", "--home", str(tmp_path), *options, fails=1).stderr
