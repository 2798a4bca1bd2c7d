"""What an engine leaves in the temporary folder and in shared memory is gone when it is, however it died."""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hekla.deployments import keeper

DEADLINE_S = 60.0
SHARED_MEMORY = Path(keeper.SHARED_MEMORY)

ENGINE = """
import multiprocessing, os, pathlib, socket, sys, tempfile, time
from multiprocessing import shared_memory

def work(pipe):
    mine = shared_memory.SharedMemory(create=True, size=4096)
    pipe.send([mine._name.lstrip("/")])
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    lock = context.Lock()
    mine = shared_memory.SharedMemory(create=True, size=4096)
    here, there = context.Pipe()
    child = context.Process(target=work, args=(there,))
    child.start()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(tempfile.gettempdir() + "/7d205545-1515-4d77-a631-e1fb4ff75513")
    semaphore = "sem." + lock._semlock.name.lstrip("/")
    print(*here.recv(), mine._name.lstrip("/"), semaphore, flush=True)
    if sys.argv[1:] == ["crash"]:
        time.sleep(0.5)  # dead at once, nobody could have seen what it used
        os.kill(os.getpid(), 9)
    time.sleep(600)
"""

Keep = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "e-1"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def keep(tmp_path: Path, scratch: Path) -> Iterator[Keep]:
    started: list[subprocess.Popen[bytes]] = []
    program = tmp_path / "engine.py"
    program.write_text(ENGINE)

    def run(*arguments: str) -> subprocess.Popen[bytes]:
        options = ["--scratch", str(scratch), "--", sys.executable, str(program), *arguments]
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
        process.wait(DEADLINE_S)


def files_of(process: subprocess.Popen[bytes]) -> list[Path]:
    """The shared memory that the engine says it has made."""
    assert process.stderr is not None
    names = process.stderr.readline().decode().split()
    assert len(names) == 3, (names, process.stderr.read())
    return [SHARED_MEMORY / name for name in names]


def end_by_stdin(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def end_by_term(process: subprocess.Popen[bytes]) -> None:
    process.terminate()


def end_by_killing_the_engine(process: subprocess.Popen[bytes]) -> None:
    psutil.Process(process.pid).children()[0].kill()


@pytest.mark.parametrize("end", [end_by_stdin, end_by_term, end_by_killing_the_engine])
def test_nothing_is_left_of_an_engine_that_is_killed(
    keep: Keep, scratch: Path, end: Callable[[subprocess.Popen[bytes]], None]
) -> None:
    process = keep()
    files = files_of(process)
    assert [file.exists() for file in files] == [True, True, True]
    assert any(path.is_socket() for path in scratch.iterdir())
    end(process)
    process.wait(DEADLINE_S)
    assert [file for file in files if file.exists()] == []
    assert not scratch.parent.exists()


def test_nothing_is_left_of_an_engine_that_dies_as_soon_as_it_has_its_memory(keep: Keep, scratch: Path) -> None:
    process = keep("crash")
    files = files_of(process)
    assert process.wait(DEADLINE_S) == 128 + signal.SIGKILL
    assert [file for file in files if file.exists()] == []
    assert not scratch.exists()


def test_shared_memory_that_another_process_still_maps_is_kept(keep: Keep) -> None:
    process = keep()
    files = files_of(process)
    try:
        with files[0].open("r+b") as file, mmap.mmap(file.fileno(), 0):
            end_by_stdin(process)
            process.wait(DEADLINE_S)
            assert [path.exists() for path in files] == [True, False, False]
    finally:
        files[0].unlink(missing_ok=True)


def test_shared_memory_that_was_there_before_is_kept(tmp_path: Path) -> None:
    file = SHARED_MEMORY / f"hekla-test-{os.getpid()}"
    file.write_bytes(b"weights")
    held = f"exec 9<{file}; echo ready >&2; sleep 600"
    command = [sys.executable, "-I", "-S", keeper.__file__, "--", "bash", "-c", held]
    try:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == b"ready\n"
            end_by_stdin(process)
            process.wait(DEADLINE_S)
        assert file.read_bytes() == b"weights"
    finally:
        file.unlink()


def test_a_sweep_leaves_what_is_held_and_what_it_does_not_know(tmp_path: Path) -> None:

    (tmp_path / "port-1").touch()
    (tmp_path / "a-file-of-mine").touch()
    with (tmp_path / "core-0").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        keeper.sweep(str(tmp_path))
        assert {path.name for path in tmp_path.iterdir()} == {"core-0", "a-file-of-mine"}
    keeper.sweep(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"a-file-of-mine"}


def test_a_folder_that_is_gone_is_not_made_again_by_a_sweep(tmp_path: Path) -> None:
    keeper.sweep(str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
