"""An engine's log on disk: the last part of it, never more than a limit."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

LOG_BYTES_MAX = 16 * 2**20
"""Kept per engine: 16 MiB, two files of half that size."""

READ_BYTES_MAX = 2**20
"""One `read`: 1 MiB."""


class LogFile:
    """Appends to `path`; when half the limit is reached the file becomes `path.1`, replacing the older half.

    Offsets count all bytes ever written, so a reader's place stays right when old ones are dropped.
    """

    def __init__(self, path: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._older = path.with_name(path.name + ".1")
        self._older.unlink(missing_ok=True)
        self._segment_bytes_max = max(1, bytes_max // 2)
        self._start = 0
        """Offset of the first byte in `path`."""
        self._older_start = 0
        self.size = 0
        self._file: BinaryIO = path.open("wb", buffering=0)

    def write(self, data: bytes) -> None:
        while data:
            room = self._segment_bytes_max - (self.size - self._start)
            if room <= 0:
                self._rotate()
                continue
            self._file.write(data[:room])
            self.size += len(data[:room])
            data = data[room:]

    def read(self, offset: int, limit: int) -> tuple[bytes, int]:
        """Bytes from `offset` (negative: from the end), at most `limit`, and the offset after them. What was dropped
        is skipped: reading goes on at the oldest byte kept."""
        first = self._older_start
        begin = min(self.size, max(first, self.size + offset if offset < 0 else offset))
        end = min(self.size, begin + max(0, min(limit, READ_BYTES_MAX)))
        data = b""
        if begin < self._start:
            data += _slice(self._older, begin - self._older_start, min(end, self._start) - begin)
        if end > self._start:
            skip = max(begin, self._start)
            data += _slice(self.path, skip - self._start, end - skip)
        return data, begin + len(data)

    def close(self) -> None:
        self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        self.path.replace(self._older)
        self._older_start, self._start = self._start, self.size
        self._file = self.path.open("wb", buffering=0)

    def __repr__(self) -> str:
        return f"LogFile({str(self.path)!r}, size={self.size}, kept={self.size - self._older_start})"


def _slice(path: Path, skip: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(skip)
        return file.read(count)
