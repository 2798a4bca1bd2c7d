"""Processes of a benchmark: none outlives it, each writes a log of its own, and what each costs can be read."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import psutil

from hekla.deployments import keeper

POLL_S = 0.1
STOP_S = 30
LOG_TAIL_CHARS = 2000


class Failed(RuntimeError):
    """A process that the benchmark needs ended or never answered; the message holds the end of its log."""


class Process:
    """A command under the product's keeper, which kills the whole tree when this process goes, however it goes."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.name, self.log, self._popen = name, log, popen

    @property
    def pids(self) -> list[int]:
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(self._popen.pid).children(recursive=True)]
        return []

    def cpu_s(self) -> float:
        """Processor seconds its living processes have used."""
        spent = 0.0
        for pid in self.pids:
            with contextlib.suppress(psutil.Error):
                spent += sum(psutil.Process(pid).cpu_times()[:2])
        return spent

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float) -> None:
        """Raises Failed when the process ends before `what` holds, or after `seconds`. A refused connection: not yet."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if holds():
                    return
            if self._popen.poll() is not None:
                raise Failed(f"{self.name} ended with {self._popen.returncode} before {what}: {self.tail()}")
            if time.monotonic() > deadline:
                raise Failed(f"{self.name}: not within {seconds:g} s: {what}: {self.tail()}")
            time.sleep(POLL_S)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-LOG_TAIL_CHARS:]

    def stop(self) -> None:
        """The keeper sees the end of its stdin, kills the tree and goes."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        self._popen.wait(STOP_S)


@contextlib.contextmanager
def running(name: str, command: Sequence[str], env: Mapping[str, str], logs: Path) -> Iterator[Process]:
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{name}.log"
    kept = [sys.executable, "-I", "-S", keeper.__file__, "--parent", str(os.getpid()), "--", *command]
    with log.open("wb") as sink:
        popen = subprocess.Popen(
            kept, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=sink, env={**os.environ, **env}
        )
    process = Process(name, popen, log)
    try:
        yield process
    finally:
        process.stop()


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on now."""
    with contextlib.ExitStack() as held:
        listeners = [held.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in listeners]
