"""Exclusive use of this node's cores and ports among engines, by file locks that the kernel drops with their holder.

The locked files are in the node's run folder, and so are the engines' temporary folders, each locked by its supervisor
and its keeper. The last holder removes the run folder (`sweep` in `hekla/deployments/keeper.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hekla.deployments.engines.node import default_run_dir
from hekla.deployments.keeper import locked_folder, sweep

PORTS = range(21000, 29000)
"""Outside the kernel's range for outgoing connections (32768…) and Ray's for its workers (10002…19999)."""


RUN_DIR_CHARS_MAX = 55
"""A Unix socket's path has 107 characters at most, and engines put sockets named by a UUID into their folder."""


@dataclass(frozen=True)
class Scratch:
    """An engine's own temporary folder."""

    path: Path
    lock: int
    """Descriptor that holds it; while any process has it the folder is in use."""


class Claims:
    """What one supervisor holds. `folder`, the run folder, is shared by the node's supervisors of one cluster."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}
        self._scratch: Scratch | None = None

    def cores(self, count: int, candidates: Iterable[int]) -> tuple[int, ...]:
        """`count` cores that nobody else holds, or none at all."""
        taken: list[int] = []
        for core in candidates:
            if len(taken) == count:
                break
            if self._claim(f"core-{core}"):
                taken.append(core)
        if len(taken) < count:
            for core in taken:
                self._drop(f"core-{core}")
            return ()
        return tuple(taken)

    def ports(self, count: int, host: str, preferred: int = 0) -> tuple[int, ...]:
        """`count` ports that nobody listens on and no other supervisor holds, `preferred` first if it is free.

        Raises OSError when there are too few.
        """
        taken: list[int] = []
        start = PORTS.start + os.getpid() % len(PORTS)
        for port in (*((preferred,) if preferred else ()), *range(start, PORTS.stop), *range(PORTS.start, start)):
            if len(taken) == count:
                return tuple(taken)
            if _is_free(host, port) and self._claim(f"port-{port}"):
                taken.append(port)
        raise OSError(f"only {len(taken)} of {count} ports are free on {host} in {PORTS.start}-{PORTS.stop - 1}")

    def scratch(self) -> Scratch:
        """A new temporary folder for the engine, the same one each time; the engine's keeper removes it."""
        if self._scratch is None:
            folder = self._folder if len(str(self._folder)) <= RUN_DIR_CHARS_MAX else default_run_dir()
            with locked_folder(str(folder), make=True):
                path = Path(tempfile.mkdtemp(prefix="e-", dir=folder))
                descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._scratch = Scratch(path, descriptor)
        return self._scratch

    def release(self) -> None:
        """Give all back. Files that nobody holds any more are removed."""
        folders = {self._folder} if self._held else set()
        for name in list(self._held):
            self._drop(name)
        if self._scratch is not None:
            os.close(self._scratch.lock)
            folders.add(self._scratch.path.parent)
            self._scratch = None
        for folder in folders:
            sweep(str(folder))

    def _claim(self, name: str) -> bool:
        if name in self._held:
            return False
        # Under the folder's lock, as files are removed under it: else two holders could lock two files of one name.
        with locked_folder(str(self._folder), make=True):
            descriptor = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                return False
        self._held[name] = descriptor
        return True

    def _drop(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.close(self._held.pop(name))

    def __repr__(self) -> str:
        return f"Claims({', '.join(sorted(self._held)) or 'none'})"


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
