"""Keeps an engine's computing threads on the cores it claimed.

vLLM's NIXL connector moves the main thread of a CPU worker, the thread that computes, to the last core of its NUMA node
(seen in 0.32), whatever the worker was bound to. Two engines of one node then compute on one core while the other idles:
a prefill that takes 6 s took up to 37 s here, and the hand-over waited for it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection
from pathlib import Path

import psutil


def bring_back(pid: int, cores: Collection[int]) -> int:
    """Give `cores` to every thread of `pid`'s tree that may run on none of them; returns how many there were.

    Threads that may run elsewhere as well (an API server's) stay as they are. No error for what has ended.
    """
    wanted = frozenset(cores)
    return _move(pid, wanted, lambda allowed: not wanted & allowed)


def let_loose(pid: int, cores: Collection[int]) -> int:
    """Let every thread of `pid`'s tree run on all of `cores`: for an engine that found no core of its own to claim."""
    wanted = frozenset(cores)
    return _move(pid, wanted, lambda allowed: allowed < wanted)


def _move(pid: int, cores: frozenset[int], is_astray: Callable[[set[int]], bool]) -> int:
    with contextlib.suppress(psutil.Error):
        tree = psutil.Process(pid)
        return sum(_move_threads(one.pid, cores, is_astray) for one in (tree, *tree.children(recursive=True)))
    return 0


def _move_threads(pid: int, cores: frozenset[int], is_astray: Callable[[set[int]], bool]) -> int:
    moved = 0
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                if is_astray(os.sched_getaffinity(int(entry.name))):
                    os.sched_setaffinity(int(entry.name), cores)
                    moved += 1
    return moved
