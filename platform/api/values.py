"""Small value types that several kinds share: durations and int-or-percent."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, PlainValidator, WithJsonSchema

from hekla.platform.api.meta import Json

INT32_MAX = 2**31 - 1
"""Replica counts are 32-bit in the Kubernetes API."""

DURATION_CHARS_MAX = 64
"""Longer text is no duration anybody wrote on purpose."""

FreeObject = Annotated[
    Json, WithJsonSchema({"type": "object", "additionalProperties": True, "x-kubernetes-preserve-unknown-fields": True})
]
"""A JSON object whose fields another rule checks, or nobody."""

_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_PERCENT = re.compile(r"([0-9]{1,3})%")


def parse_duration_s(text: str) -> float:
    """Seconds of a Go duration: `5s`, `100ms`, `1h30m`, `0`. Raises ValueError, also for a negative one."""
    if text == "0":
        return 0.0
    parts = list(_PART.finditer(text)) if len(text) <= DURATION_CHARS_MAX else []
    if not parts or "".join(part[0] for part in parts) != text:
        raise ValueError(f"{text[:DURATION_CHARS_MAX]!r} is not a duration; allowed: such as 5s, 100ms, 1m30s")
    return sum(float(part[1]) * _UNIT_S[part[2]] for part in parts)


def _checked_duration(text: str) -> str:
    parse_duration_s(text)
    return text


Duration = Annotated[str, AfterValidator(_checked_duration)]
"""A duration as people write it; `parse_duration_s` gives seconds."""


def _checked_int_or_percent(value: Any) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= INT32_MAX:
        return value
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if match is not None and int(match[1]) <= 100:
        return str(value)
    shown = value if isinstance(value, (int, float, str)) else type(value).__name__
    raise ValueError(f'{shown!r} is not a count or a percentage; allowed: a whole number from 0, or "0%" to "100%"')


IntOrPercent = Annotated[
    int | str,
    PlainValidator(_checked_int_or_percent),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}),
]
"""A count, or a share of a count: `1` or `"25%"`."""


def resolve_int_or_percent(value: int | str, total: int, *, round_up: bool) -> int:
    """The count that `value` means out of `total`; raises ValueError when it is neither a count nor a percentage."""
    checked = _checked_int_or_percent(value)
    if isinstance(checked, int):
        return checked
    scaled = int(checked[:-1]) * total
    return -(-scaled // 100) if round_up else scaled // 100
