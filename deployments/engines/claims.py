"""Exclusive use of this node's cores and ports among engines, by file locks that the kernel drops with their holder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterable
from pathlib import Path

PORTS = range(21000, 29000)
"""Outside the kernel's range for outgoing connections (32768…) and Ray's for its workers (10002…19999)."""


class Claims:
    """What one supervisor holds. `folder` is shared by all of the node's supervisors of one user."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._held: dict[str, int] = {}

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

    def release(self) -> None:
        for name in list(self._held):
            self._drop(name)

    def _claim(self, name: str) -> bool:
        if name in self._held:
            return False
        # The file stays: removing it would let two holders lock two files of one name.
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
