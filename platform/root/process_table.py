"""Which processes belong to a cluster: those whose environment carries its id, and what they started.

Linux only: it reads /proc. An environment is inherited by everything that Ray starts, so no list of pids has to be kept
and nothing of another cluster is ever touched.
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil

CLUSTER_VARIABLE = "HEKLA_CLUSTER"

_PROC = Path("/proc")
_SHARED_MEMORY = "/dev/shm/"


def processes_of(cluster_id: str) -> list[int]:
    """Pids of the cluster's living processes: marked ones, and descendants that hid their environment (sandboxes).

    Never this process or one of its ancestors, whatever their environment says.
    """
    marked = {pid for pid in all_pids() if _is_marked(pid, cluster_id)}
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = {pid for root in marked - mine for pid in (root, *_descendants(root))}
    return sorted(pid for pid in found - mine if _is_running(pid))


def shared_memory_of(pids: list[int]) -> set[Path]:
    """Files below /dev/shm that these processes have mapped or open and that still have a name."""
    found: set[Path] = set()
    for pid in pids:
        for target in (*_mapped(pid), *_open(pid)):
            if target.startswith(_SHARED_MEMORY) and not target.endswith(" (deleted)"):
                found.add(Path(target))
    return found


def all_pids() -> list[int]:
    """Every process of this machine that we can see."""
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _is_marked(pid: int, cluster_id: str) -> bool:
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:  # it ended, or it is another user's
        return False
    return f"{CLUSTER_VARIABLE}={cluster_id}".encode() in environment.split(b"\0")


def _descendants(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def _is_running(pid: int) -> bool:
    """A zombie is a number that its parent has yet to read, not a process."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _mapped(pid: int) -> list[str]:
    try:
        lines = (_PROC / str(pid) / "maps").read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [fields[5] for line in lines if len(fields := line.split(maxsplit=5)) == 6]


def _open(pid: int) -> list[str]:
    found = []
    try:
        for descriptor in (_PROC / str(pid) / "fd").iterdir():
            found.append(os.readlink(descriptor))
    except OSError:
        pass
    return found
