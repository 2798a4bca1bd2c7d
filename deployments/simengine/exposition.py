"""Counters, gauges and histograms in Prometheus's text format: only what this server needs, and fast to update."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def one_two_five(most: int) -> tuple[float, ...]:
    """1, 2, 5, 10, 20, 50 … up to `most`."""
    steps: list[float] = []
    power = 1
    while power <= most:
        steps += [factor * power for factor in (1, 2, 5) if factor * power <= most]
        power *= 10
    return tuple(float(step) for step in steps)


class Histogram:
    """Upper bounds are inclusive; the last bucket is +Inf."""

    def __init__(self, bounds: Iterable[float]) -> None:
        self.bounds = tuple(bounds)
        self.buckets = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.buckets)


class Page:
    """Builds one scrape; `labels` go on every sample."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = dict(labels)
        self._lines: list[str] = []

    def gauge(self, name: str, about: str, value: float) -> None:
        self._head(name, about, "gauge")
        self._sample(name, value, {})

    def information(self, name: str, about: str, value: float, **labels: str) -> None:
        """A gauge with labels of its own, without the page's."""
        self._head(name, about, "gauge")
        self._lines.append(f"{name}{{{_inside(labels)}}} {_number(value)}")

    def gauges(self, name: str, about: str, label: str, values: Mapping[str, float]) -> None:
        """One sample per value of a label."""
        self._head(name, about, "gauge")
        for key, value in values.items():
            self._sample(name, value, {label: key})

    def counter(self, name: str, about: str, value: float) -> None:
        self._head(f"{name}_total", about, "counter")
        self._sample(f"{name}_total", value, {})

    def counters(self, name: str, about: str, label: str, values: Mapping[str, float]) -> None:
        self._head(f"{name}_total", about, "counter")
        for key, value in values.items():
            self._sample(f"{name}_total", value, {label: key})

    def histogram(self, name: str, about: str, data: Histogram) -> None:
        self._head(name, about, "histogram")
        running = 0
        for bound, count in zip((*map(_number, data.bounds), "+Inf"), data.buckets, strict=True):
            running += count
            self._sample(f"{name}_bucket", running, {"le": bound})
        self._sample(f"{name}_sum", data.sum, {})
        self._sample(f"{name}_count", running, {})

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def _head(self, name: str, about: str, kind: str) -> None:
        self._lines.append(f"# HELP {name} {about}")
        self._lines.append(f"# TYPE {name} {kind}")

    def _sample(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        self._lines.append(f"{name}{{{_inside(self._labels | dict(labels))}}} {_number(value)}")


def _inside(labels: Mapping[str, str]) -> str:
    return ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())


def _number(value: float) -> str:
    return repr(float(value))


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
