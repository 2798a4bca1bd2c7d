"""What an engine says of its load and its memory, out of its Prometheus page. Pure.

vLLM and SGLang name the same two gauges differently; prefixes with an underscore are what exporters that allow no
colon make of them (vLLM inside Ray writes `ray_vllm_…`).
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from hekla.routing.load import AdapterState

_RUNNING = (b"num_requests_running", b"num_running_reqs")
_SAMPLE = re.compile(
    rb"^(?:ray_)?(?:vllm|sglang)[:_](num_requests_running|num_requests_waiting|num_running_reqs|num_queue_reqs)"
    rb'(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?[ \t]+(\S+)',
    re.MULTILINE,
)
_LABEL = re.compile(rb'([A-Za-z_][A-Za-z0-9_]*)\s*=\s*("(?:[^"\\]|\\.)*")')
_SAME_REQUESTS = frozenset({b"tp_rank", b"pp_rank", b"pid"})
"""Labels whose values repeat one scheduler's number; over all others (data-parallel ranks, models) numbers add up."""
_MEMORY = re.compile(
    rb"^(?:ray_)?(?:vllm|sglang)[:_](kv_cache_usage_perc|gpu_cache_usage_perc|token_usage|max_total_num_tokens"
    rb"|cache_config_info|lora_requests_info)"
    rb'(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?[ \t]+(\S+)',
    re.MULTILINE,
)
_USAGES = (b"kv_cache_usage_perc", b"gpu_cache_usage_perc", b"token_usage")
ADAPTERS_MAX = 1024
COUNT_MAX = 10**9
"""A larger number is no count of requests."""


class Report(NamedTuple):
    """None: the page does not say."""

    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    """Share of the KV cache in use, 0 to 1; the mean over data-parallel ranks."""
    kv_capacity_tokens: int | None = None
    """All ranks together."""
    adapters: AdapterState | None = None


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
    return Report(_sum(series, True), _sum(series, False), _kv_usage(page), _capacity(page), _adapters(page))


def _of(page: bytes, *names: bytes) -> list[tuple[dict[bytes, bytes], float]]:
    """Labels, without their quotes, and value of every sample of these names."""
    found = []
    for name, labels, text in _MEMORY.findall(page):
        value = _number(text, most=math.inf) if name in names else None
        if value is not None:
            found.append(({key: quoted[1:-1] for key, quoted in _LABEL.findall(labels)}, value))
    return found


def _kv_usage(page: bytes) -> float | None:
    shares = [min(value, 1.0) for _, value in _of(page, *_USAGES)]
    return sum(shares) / len(shares) if shares else None


def _capacity(page: bytes) -> int | None:
    """vLLM tells blocks and their size as labels, SGLang tokens as a value; ranks of one scheduler tell the same."""
    ranks: dict[frozenset[tuple[bytes, bytes]], int] = {}
    for labels, value in _of(page, b"cache_config_info", b"max_total_num_tokens"):
        size, blocks = labels.get(b"block_size", b""), labels.get(b"num_gpu_blocks", b"")
        tokens = int(size) * int(blocks) if size.isdigit() and blocks.isdigit() else round(min(value, COUNT_MAX))
        told_as_value = b"block_size" not in labels
        if (size.isdigit() and blocks.isdigit()) or told_as_value:
            ranks[frozenset(pair for pair in labels.items() if pair[0] not in _SAME_REQUESTS)] = min(tokens, COUNT_MAX)
    return sum(ranks.values()) or None


def _adapters(page: bytes) -> AdapterState | None:
    """The value is the time it was said: the latest counts."""
    told = _of(page, b"lora_requests_info")
    if not told:
        return None
    labels, _ = max(told, key=lambda sample: sample[1])
    slots = labels.get(b"max_lora", b"")
    return AdapterState(
        _names(labels.get(b"running_lora_adapters", b"")), _names(labels.get(b"waiting_lora_adapters", b"")),
        min(int(slots), ADAPTERS_MAX) if slots.isdigit() and len(slots) < 10 else 0,
    )  # fmt: skip


def _names(text: bytes) -> frozenset[str]:
    names = [name.strip() for name in text.decode("utf-8", "replace").split(",")[:ADAPTERS_MAX]]
    return frozenset(name for name in names if name)


def _sum(series: dict[tuple[bool, frozenset[tuple[bytes, bytes]]], float], running: bool) -> int | None:
    values = [value for (is_running, _), value in series.items() if is_running is running]
    return round(sum(values)) if values else None


def _number(text: bytes, *, most: float = COUNT_MAX) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value <= most else None
