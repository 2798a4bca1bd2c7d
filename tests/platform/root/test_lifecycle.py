"""`hekla down`, and `hekla up` where it refuses, without any Ray: what a crash leaves is a file, a folder, processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hekla.platform.base.errors import Permanent
from hekla.platform.root.lifecycle import RayOptions, _clear_away, down, up
from hekla.platform.root.process_table import CLUSTER_VARIABLE
from hekla.platform.root.settings import ClusterFile, PlatformSettings

CLUSTER_ID = "test-lifecycle"


@pytest.fixture
def left_over() -> Iterator[psutil.Process]:
    """A process of a Ray whose head is dead."""
    command = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(300)"]
    with subprocess.Popen(
        command, env=os.environ | {CLUSTER_VARIABLE: CLUSTER_ID}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield psutil.Process(process.pid)
        process.kill()


def crashed(home: Path, folder: Path, port: int, **changes: str) -> ClusterFile:
    """As `hekla up` left it before the head died: nothing listens on its ports any more."""
    folder.mkdir()
    (folder / "session_latest").mkdir()
    known = ClusterFile(
        **{
            "endpoint": f"http://127.0.0.1:{port}",
            "ray_address": f"127.0.0.1:{port}",
            "ray_namespace": "hekla",
            "cluster_id": CLUSTER_ID,
            "temp_dir": str(folder),
            **changes,
        }
    )
    known.write(home)
    return known


def is_running(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.timeout(60)
def test_down_clears_a_half_dead_ray_by_its_processes(
    tmp_path: Path, left_over: psutil.Process, free_port: Callable[[], int]
) -> None:
    home, said = tmp_path / "my home", list[str]()
    crashed(home, tmp_path / "ray", free_port())
    assert down(home, said.append) == []
    assert not is_running(left_over)
    assert not (tmp_path / "ray").exists()
    assert ClusterFile.read(home) is None
    assert said == ["stopping Ray", "down"]


def test_down_after_a_restart_of_the_machine_clears_the_folder(tmp_path: Path, free_port: Callable[[], int]) -> None:
    crashed(tmp_path / "home", tmp_path / "ray", free_port())
    assert down(tmp_path / "home", lambda _: None) == []
    assert not (tmp_path / "ray").exists()
    assert ClusterFile.read(tmp_path / "home") is None


def test_down_with_nothing_up_says_so(tmp_path: Path) -> None:
    said = list[str]()
    assert down(tmp_path, said.append) == []
    assert said == ["nothing is up"]


def test_down_forgets_a_joined_ray_that_is_gone_and_touches_nothing_of_it(
    tmp_path: Path, left_over: psutil.Process, free_port: Callable[[], int]
) -> None:
    crashed(tmp_path / "home", tmp_path / "ray", free_port(), cluster_id="", temp_dir="")
    assert down(tmp_path / "home", lambda _: None) == []
    assert ClusterFile.read(tmp_path / "home") is None
    assert is_running(left_over)
    assert (tmp_path / "ray").exists()


def test_what_a_crash_left_is_cleared_away_before_the_next_start(
    tmp_path: Path, left_over: psutil.Process, free_port: Callable[[], int]
) -> None:
    home, said = tmp_path / "home", list[str]()
    _clear_away(crashed(home, tmp_path / "ray", free_port()), home, said.append)
    assert not is_running(left_over)
    assert not (tmp_path / "ray").exists()
    assert ClusterFile.read(home) is None
    assert said == ["clearing away what is left of a Ray that died"]


def test_up_refuses_a_taken_port_before_it_starts_anything(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = PlatformSettings(home=str(tmp_path / "home"), port=taken.getsockname()[1])
        with pytest.raises(Permanent, match="is taken by another program; choose one with --port"):
            up(settings, RayOptions(), lambda _: None)
    assert not (tmp_path / "home").exists()


def test_up_refuses_another_ray_than_the_one_it_is_on(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ray:
        address = f"127.0.0.1:{ray.getsockname()[1]}"
        crashed(tmp_path / "home", tmp_path / "ray", 1, ray_address=address, cluster_id="", temp_dir="")
        settings = PlatformSettings(home=str(tmp_path / "home"))
        with pytest.raises(Permanent, match=f"already up on Ray {address}"):
            up(settings, RayOptions(address="10.0.0.9:6379"), lambda _: None)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("verb", ["up", "down"])
def test_a_home_that_is_no_folder_and_a_broken_cluster_file_end_in_one_message(
    hekla: Callable[..., Any], tmp_path: Path, verb: str
) -> None:
    (tmp_path / "file").write_text("")
    refused = hekla(verb, "--home", str(tmp_path / "file" / "home"), fails=1)
    assert "Not a directory" in refused.stderr
    assert "Traceback" not in refused.stderr
    (tmp_path / "cluster.json").write_text(json.dumps(["?"]))
    refused = hekla(verb, "--home", str(tmp_path), fails=1)
    assert "cluster.json is not what `hekla up` writes" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.timeout(60)
def test_purge_removes_what_hekla_wrote_and_nothing_else(hekla: Callable[..., Any], tmp_path: Path) -> None:
    home = tmp_path / "my home"
    for name in ("models/abc/weights", "logs/default/engine.log"):
        (home / name).parent.mkdir(parents=True)
    for name in ("store.db", "store.db-wal", "ray-start.log", "models/abc/weights", "logs/default/engine.log", "mine"):
        (home / name).write_text("x")
    hekla("down", "--home", str(home))
    assert (home / "store.db").exists()
    hekla("down", "--purge", HEKLA_HOME=str(home))
    assert [path.name for path in home.iterdir()] == ["mine"]
    (home / "mine").unlink()
    hekla("down", "--purge", "--home", str(home))
    assert not home.exists()


def test_up_does_not_write_down_a_ray_that_is_not_there(tmp_path: Path, free_port: Callable[[], int]) -> None:
    settings, address = PlatformSettings(home=str(tmp_path), port=free_port()), f"127.0.0.1:{free_port()}"
    with pytest.raises(Permanent, match=f"no Ray cluster answers at {address}"):
        up(settings, RayOptions(address=address), lambda _: None)
    assert ClusterFile.read(tmp_path) is None
