"""Server-sent events as bytes. Pure."""

from __future__ import annotations

import re

_ENDS = re.compile(rb"(\r?\n\r?\n)")


def split_events(chunk: bytes) -> list[bytes]:
    """The events with their ends; joined they are the chunk."""
    if b"\r" not in chunk:
        *whole, rest = chunk.split(b"\n\n")
        return [*(event + b"\n\n" for event in whole), *([rest] if rest else ())]
    parts = _ENDS.split(chunk)
    events = [parts[i] + parts[i + 1] for i in range(0, len(parts) - 1, 2)]
    return [*events, parts[-1]] if parts[-1] else events


def data_of(event: bytes) -> bytes:
    """What its `data:` lines hold."""
    if event.startswith(b"data: ") and event.find(b"\n") >= len(event) - 2:  # the form nearly all have
        return event[6:].rstrip()
    return b"".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))


def whole_events_end(chunk: bytes) -> int:
    """Where the last whole event ends."""
    return max(
        chunk.rfind(b"\n\n") + 2 if b"\n\n" in chunk else 0, chunk.rfind(b"\n\r\n") + 3 if b"\n\r\n" in chunk else 0
    )
