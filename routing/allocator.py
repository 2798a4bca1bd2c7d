"""Has glibc's malloc give the memory of large bodies back to the system when they are freed.

By default it learns from the first large block freed to serve blocks of up to 32 MiB from its heap. There a few small
live objects pin what lies below them: after bodies of 30 MiB a process that uses 17 MiB was seen to keep 200 MiB of free
pages for ever. With a fixed threshold each large block is a mapping of its own, which goes back whole; a body that grows
is moved by the kernel without being copied (`mremap`). See mallopt(3).
"""

from __future__ import annotations

import ctypes

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
