"""Threads that were moved off an engine's cores come back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hekla.deployments.engines.affinity import bring_back, let_loose

STRAY = """
import os, sys, threading
core, stay = int(sys.argv[1]), threading.Event()
os.sched_setaffinity(0, {core})
threading.Thread(target=stay.wait, daemon=True).start()
print("moved", flush=True)
sys.stdin.read()
"""


def affinities(pid: int) -> list[set[int]]:
    return [os.sched_getaffinity(int(task)) for task in os.listdir(f"/proc/{pid}/task")]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_threads_on_other_cores_come_back_and_free_ones_stay_free() -> None:
    first, second = sorted(os.sched_getaffinity(0))[:2]
    command = [sys.executable, "-c", STRAY, str(second)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stray:
        assert stray.stdout is not None
        assert stray.stdout.readline() == b"moved\n"
        assert affinities(stray.pid) == [{second}, {second}]
        assert bring_back(stray.pid, (first,)) == 2
        assert affinities(stray.pid) == [{first}, {first}]
        os.sched_setaffinity(stray.pid, {first, second})
        assert bring_back(stray.pid, (first,)) == 0
        assert let_loose(stray.pid, (first, second)) == 1
        assert affinities(stray.pid) == [{first, second}, {first, second}]
        assert stray.stdin is not None
        stray.stdin.close()


def test_a_process_that_has_ended_is_no_error() -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    assert bring_back(ended.pid, (0,)) == 0
