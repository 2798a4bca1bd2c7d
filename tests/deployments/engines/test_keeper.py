"""The keeper with real processes: who dies, who must not live on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hekla.deployments import keeper

DEADLINE_S = 30.0

Keep = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def keep() -> Iterator[Keep]:
    started: list[subprocess.Popen[bytes]] = []

    def run(script: str, grace_s: float = 20.0, parent: int = 0) -> subprocess.Popen[bytes]:
        options = ["--grace", str(grace_s), "--parent", str(parent)]
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__, *options, "--", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
        process.wait(DEADLINE_S)


def engine_pid(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    word, pid = process.stdout.readline().split()
    assert word == b"started"
    return int(pid)


def last_news(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.read().decode().strip()


def written_pid(file: Path) -> int:
    eventually(lambda: file.exists() and file.read_text().endswith("\n"))
    return int(file.read_text())


def eventually(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not claim():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_engines_exit_code_is_the_keepers(keep: Keep) -> None:
    process = keep("exit 3")
    engine_pid(process)
    assert last_news(process) == "exited 3"
    assert process.wait(DEADLINE_S) == 3


def test_the_engines_output_goes_to_stderr(keep: Keep) -> None:
    process = keep("echo out; echo err >&2")
    engine_pid(process)
    assert process.stderr is not None
    assert sorted(process.stderr.read().split()) == [b"err", b"out"]


def test_what_a_killed_engine_leaves_is_killed_also_in_a_session_of_its_own(keep: Keep, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    process = keep(f"setsid sh -c 'echo $$ > {note}; exec sleep 600' & wait")
    engine, orphan = engine_pid(process), written_pid(note)
    os.kill(engine, signal.SIGKILL)
    assert last_news(process) == "signalled 9"
    assert process.wait(DEADLINE_S) == 137
    assert not is_alive(orphan)


def test_the_whole_tree_dies_when_stdin_ends(keep: Keep, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    process = keep(f"trap '' TERM; sh -c 'echo $$ > {note}; sleep 600' & wait; sleep 600")
    engine, child = engine_pid(process), written_pid(note)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(DEADLINE_S) == 137
    assert not is_alive(engine)
    assert not is_alive(child)


def test_term_is_passed_on_and_the_engine_may_finish(keep: Keep, tmp_path: Path) -> None:
    ready = tmp_path / "pid"
    process = keep(f"trap 'exit 7' TERM; echo $$ > {ready}; while :; do sleep 0.05; done")
    engine_pid(process)
    written_pid(ready)
    process.terminate()
    assert last_news(process) == "exited 7"


def test_an_engine_that_ignores_term_is_killed_after_the_grace(keep: Keep, tmp_path: Path) -> None:
    ready = tmp_path / "pid"
    process = keep(f"trap '' TERM; echo $$ > {ready}; while :; do sleep 0.05; done", grace_s=0.2)
    engine = engine_pid(process)
    written_pid(ready)
    process.terminate()
    assert process.wait(DEADLINE_S) == 137
    assert not is_alive(engine)


def test_the_engine_does_not_outlive_a_killed_keeper(keep: Keep) -> None:
    process = keep("exec sleep 600")
    engine = engine_pid(process)
    process.kill()
    eventually(lambda: not is_alive(engine))


def test_a_program_that_is_not_there_is_refused_with_the_reason() -> None:
    argv = [sys.executable, "-I", "-S", keeper.__file__, "--", "/no/such/program"]
    done = subprocess.run(argv, check=False, stdin=subprocess.PIPE, capture_output=True, timeout=DEADLINE_S)
    assert done.returncode == keeper.REFUSED
    assert done.stdout.startswith(b"refused /no/such/program: ")


def test_nothing_is_started_for_a_supervisor_that_is_gone(keep: Keep) -> None:
    process = keep("echo started anyway >&2", parent=2**22 + 1)
    assert last_news(process) == "refused the supervisor is gone already"
    assert process.stderr is not None
    assert process.stderr.read() == b""


def test_an_engine_does_not_inherit_ignored_signals(keep: Keep) -> None:
    process = keep("grep SigIgn /proc/self/status")
    engine_pid(process)
    assert process.stderr is not None
    ignored = int(process.stderr.read().split()[1], 16)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        assert not ignored & (1 << (number - 1)), number
