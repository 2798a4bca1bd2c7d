"""What an engine's log lines mean: how far loading is, and why it died. Pure."""

from __future__ import annotations

import re
from collections import deque

LINES_KEPT = 200
"""Last lines remembered to explain a death."""

LINE_BYTES_MAX = 4096
"""A longer line is cut in what is remembered; the log file has all of it."""

LAST_WORDS_LINES = 4
LAST_WORDS_CHARS_MAX = 600

_MILESTONES: tuple[tuple[re.Pattern[str], float, str], ...] = (
    (re.compile(r"Starting to load model|Load weight begin"), 0.2, "loading weights"),
    (re.compile(r"Loading weights took|Load weight end"), 0.5, "weights loaded"),
    (re.compile(r"Warming up model|torch\.compile|Capturing|Dynamo bytecode"), 0.6, "compiling and warming up"),
    (re.compile(r"init engine .* took|max_total_num_tokens"), 0.9, "warmed up"),
    (re.compile(r"Starting vLLM server|Application startup complete"), 0.95, "starting its server"),
)
_SHARDS = re.compile(r"Loading safetensors checkpoint shards:\s+(\d+)%")
_PREFIX = re.compile(r"^\([^)]*pid=\d+\)\s*")
_ERROR = re.compile(r"\b[A-Za-z_.]*(Error|Exception|Killed|error:|fatal|FATAL|CRITICAL)\b|^E\d{4}|ERROR")
_NOISE = re.compile(
    r"^\s*$|^\s*(File \"|\^+|Traceback|raise |return |await |self\.)|During handling|The above exception"
)
# Engines wrap the root cause in errors that only point at it.
_POINTER = re.compile(r"See root cause above|Engine core initialization failed|EngineDeadError|resource_tracker|warn")


def loading_progress(line: str) -> tuple[float, str] | None:
    """(0…1, what it does) when the line is a milestone of the engine's start."""
    if shards := _SHARDS.search(line):
        return round(0.2 + 0.3 * int(shards[1]) / 100, 3), "loading weights"
    for pattern, progress, detail in _MILESTONES:
        if pattern.search(line):
            return progress, detail
    return None


class RecentLines:
    """Splits output into lines and remembers the last ones."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes. A carriage return ends one too: progress bars use it."""
        *whole, rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        self._rest = rest[-LINE_BYTES_MAX:]
        lines = [line[:LINE_BYTES_MAX].decode(errors="replace") for line in whole]
        self._lines.extend(lines)
        return lines

    def last_words(self) -> str:
        """The lines that tell best why the process died: errors without their tracebacks, else simply the last."""
        texts = [_PREFIX.sub("", line).rstrip() for line in [*self._lines, self._rest.decode(errors="replace")]]
        texts = [text for text in texts if not _NOISE.search(text)]
        errors = [text for text in texts if _ERROR.search(text) and not _POINTER.search(text)]
        chosen = errors or texts
        return " | ".join(dict.fromkeys(chosen[-LAST_WORDS_LINES:]))[-LAST_WORDS_CHARS_MAX:]
