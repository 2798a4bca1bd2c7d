"""Arguments of plugins as a configuration names them: checked, with errors that say what is allowed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Argument:
    """A number of a plugin."""

    default: float
    least: float
    most: float
    whole: bool = False
    """A whole number."""
    means: str = ""

    def read(self, field: str, value: Any) -> float:
        """Raises ValueError naming the field, the value and what is allowed."""
        kind = "a whole number" if self.whole else "a number"
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or (self.whole and value != int(value)) or not self.least <= value <= self.most:
            raise ValueError(f"{field} is {value!r}; allowed: {kind} from {self.least:g} to {self.most:g}")
        return int(value) if self.whole else float(value)


def read_arguments(field: str, known: Mapping[str, Argument], given: Mapping[str, Any]) -> dict[str, float]:
    """All arguments, the default where none is given. Raises ValueError naming those there are."""
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        allowed = ", ".join(sorted(known)) or "none"
        raise ValueError(f"{field} has {unknown[0]!r}; known: {allowed}")
    return {
        name: argument.read(f"{field}.{name}", given.get(name, argument.default)) for name, argument in known.items()
    }
