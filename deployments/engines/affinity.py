"""Keeps an engine's computing threads on the cores it claimed.

vLLM's NIXL connector moves the main thread of a CPU worker, the thread that computes, to the last core of its NUMA node
(seen in 0.32), whatever the worker was bound to. Two engines of one node then compute on one core while the other idles:
a prefill that takes 6 s took up to 37 s here, and the hand-over waited for it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

import psutil


def bring_back(pid: int, cores: Collection[int]) -> int:
    """Give `cores` to every thread of `pid`'s tree that may run on none of them; returns how many there were.

    Threads that may run elsewhere as well (an API server's) stay as they are. No error for what has ended.
    """
    with contextlib.suppress(psutil.Error):
        tree = psutil.Process(pid)
        return sum(_bring_back_threads(one.pid, frozenset(cores)) for one in (tree, *tree.children(recursive=True)))
    return 0


def _bring_back_threads(pid: int, cores: frozenset[int]) -> int:
    moved = 0
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                if not cores & os.sched_getaffinity(int(entry.name)):
                    os.sched_setaffinity(int(entry.name), cores)
                    moved += 1
    return moved
