"""How many requests an engine says it runs and holds back, out of its Prometheus page. Pure.

vLLM and SGLang name the same two gauges differently; prefixes with an underscore are what exporters that allow no
colon make of them (vLLM inside Ray writes `ray_vllm_…`).
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

_RUNNING = (b"num_requests_running", b"num_running_reqs")
_SAMPLE = re.compile(
    rb"^(?:ray_)?(?:vllm|sglang)[:_](num_requests_running|num_requests_waiting|num_running_reqs|num_queue_reqs)"
    rb'(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?[ \t]+(\S+)',
    re.MULTILINE,
)
_LABEL = re.compile(rb'([A-Za-z_][A-Za-z0-9_]*)\s*=\s*("(?:[^"\\]|\\.)*")')
_SAME_REQUESTS = frozenset({b"tp_rank", b"pp_rank", b"pid"})
"""Labels whose values repeat one scheduler's number; over all others (data-parallel ranks, models) numbers add up."""
COUNT_MAX = 10**9
"""A larger number is no count of requests."""


class Report(NamedTuple):
    """None: the page does not say."""

    running: int | None = None
    waiting: int | None = None


def parse_report(page: bytes) -> Report:
    """What can't be read counts as not said; never fails."""
    series: dict[tuple[bool, frozenset[tuple[bytes, bytes]]], float] = {}
    for name, labels, text in _SAMPLE.findall(page):
        value = _number(text)
        if value is not None:
            key = (
                name in _RUNNING,
                frozenset(pair for pair in _LABEL.findall(labels) if pair[0] not in _SAME_REQUESTS),
            )
            series[key] = max(series.get(key, 0.0), value)
    return Report(_sum(series, True), _sum(series, False))


def _sum(series: dict[tuple[bool, frozenset[tuple[bytes, bytes]]], float], running: bool) -> int | None:
    values = [value for (is_running, _), value in series.items() if is_running is running]
    return round(sum(values)) if values else None


def _number(text: bytes) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value <= COUNT_MAX else None
