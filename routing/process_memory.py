"""How a process that is an ingress replica and nothing else treats its memory.

glibc's malloc is to give the memory of large bodies back to the system when they are freed. By default it learns from the first large block freed to serve blocks of up to 32 MiB from its heap. There a few small
live objects pin what lies below them: after bodies of 30 MiB a process that uses 17 MiB was seen to keep 200 MiB of free
pages for ever. With a fixed threshold each large block is a mapping of its own, which goes back whole; a body that grows
is moved by the kernel without being copied (`mremap`). See mallopt(3).

Python's cycle collector is to look seldom: a request leaves no cycles behind (tests/routing/test_memory.py holds it to that),
and by default looking for some takes a fifth of a request's CPU time.
"""

from __future__ import annotations

import ctypes
import gc

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
MAPPED_FROM_BYTES = 128 * 2**10
"""glibc's own first value; naming it is what stops it from growing. A mapping costs some microseconds, as much as the
copy of so many bytes."""
KEPT_BYTES = 1 * 2**20
"""Free memory kept at the heap's end: what a burst of small requests needs, without asking the system each time."""
ARENAS = 2
"""One for the event loop, one for the threads that write the log and tokenise: each keeps free memory of its own."""


def return_large_blocks() -> bool:
    """Call once, when the process begins. False where malloc can't be told (not glibc): then nothing has changed."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_MMAP_THRESHOLD, MAPPED_FROM_BYTES), (_TRIM_THRESHOLD, KEPT_BYTES), (_ARENA_MAX, ARENAS))
    taken = [mallopt(what, value) == 1 for what, value in wanted]
    return all(taken)


COLLECTED_AFTER_OBJECTS = 10_000
"""Objects made and not freed until the youngest are looked at: about ten requests in flight at once make so many."""
OLDER_AFTER = (20, 50)
"""Looks at the youngest per look at the next generation, and at that per look at all."""


def collect_seldom() -> None:
    """Call once, when the process is set up: what there is by then is taken to stay, and not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTED_AFTER_OBJECTS, *OLDER_AFTER)
