"""Server-sent events as bytes. Pure."""

from __future__ import annotations

import re

_ENDS = re.compile(rb"(\r?\n\r?\n)")


def split_events(chunk: bytes) -> list[bytes]:
    """The events with their ends; joined they are the chunk."""
    parts = _ENDS.split(chunk)
    events = [parts[i] + parts[i + 1] for i in range(0, len(parts) - 1, 2)]
    return [*events, parts[-1]] if parts[-1] else events


def data_of(event: bytes) -> bytes:
    """What its `data:` lines hold."""
    return b"".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))


def whole_events_end(chunk: bytes) -> int:
    """Where the last whole event ends."""
    return max(
        chunk.rfind(b"\n\n") + 2 if b"\n\n" in chunk else 0, chunk.rfind(b"\n\r\n") + 3 if b"\n\r\n" in chunk else 0
    )
