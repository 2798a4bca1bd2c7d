"""The numbers a decision reads of every engine, in columns: one row per engine, one contiguous array per number.

A decision over a thousand engines reads ten numbers of each; as attributes of objects that alone takes milliseconds.
`EngineLoad` writes its row when something changes; a decision takes the rows it needs in one gather.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Rows = NDArray[np.int64]

REQUESTS: Final = 0
PREFILL: Final = 1
STREAMING: Final = 2
CONTEXT: Final = 3
KV: Final = 4
HEAD_TOKENS: Final = 5
HEAD_SINCE_S: Final = 6
RUNNING: Final = 7
WAITING: Final = 8
KV_USAGE: Final = 9
SUSPECT_UNTIL_S: Final = 10
EJECTED: Final = 11
TTFT_S: Final = 12
TPOT_S: Final = 13
WARMUP_SHARE: Final = 14
FOREIGN: Final = 15
FOREIGN_WAITING: Final = 16
KV_AT_REPORT: Final = 17
"""What was counted as held (`KV`) when the engine last reported `KV_USAGE`; unknown while only this replica counts."""
WIDTH: Final = 18

UNKNOWN: Final = float("nan")
_FRESH: Final = (0, 0, 0, 0, 0, 0, 0, UNKNOWN, UNKNOWN, UNKNOWN, float("-inf"), 0, UNKNOWN, UNKNOWN, 1, 0, 0, UNKNOWN)


class LoadColumns:
    """`table[column, row]`. Rows of engines that are gone are given to new ones; `generation` counts when they are."""

    def __init__(self, rows: int = 1) -> None:
        self.table: Vector = np.empty((WIDTH, rows))
        self._free = list(range(rows - 1, -1, -1))
        self.generation = 0

    def take(self) -> int:
        """A fresh row; the table grows when it is full."""
        if not self._free:
            size = self.table.shape[1]
            grown = np.empty((WIDTH, size * 2))
            grown[:, :size] = self.table
            self.table = grown
            self._free = list(range(size * 2 - 1, size - 1, -1))
        row = self._free.pop()
        self.table[:, row] = _FRESH
        return row

    def give_back(self, row: int) -> None:
        self._free.append(row)
        self.generation += 1

    def gather(self, rows: Rows) -> Vector:
        """A copy, `[column, candidate]`."""
        return np.take(self.table, rows, axis=1)
