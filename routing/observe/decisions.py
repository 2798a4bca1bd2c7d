"""The latest decisions, kept as they were made and told in full only when someone asks; and replaying one. Pure.

What is kept is what the decision itself holds, so keeping costs an append. A decision can be made again from its
explanation: scores times weights, the highest total, equals by lot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from hekla.routing.observe.explanation import decision
from hekla.routing.observe.story import Explainable

EQUAL = 1e-5
"""Totals nearer than this are equal: explanations are rounded to six digits."""


class Kept(NamedTuple):
    number: int
    unix_s: float
    request_id: str
    model: str
    tenant: str
    server: str
    engine: str
    plan: Explainable


class Decisions:
    """A ring of the latest `decisions_max`."""

    def __init__(self, decisions_max: int) -> None:
        self._ring: deque[Kept] = deque(maxlen=decisions_max)
        self.made = 0
        """Since the start: the number of the latest."""

    def keep(self, unix_s: float, request_id: str, names: tuple[str, str, str], engine: str, plan: Explainable) -> int:
        """`names` are those of model, tenant and ModelServer. Returns the decision's number."""
        self.made += 1
        self._ring.append(Kept(self.made, unix_s, request_id, *names, engine, plan))
        return self.made

    def latest(self, count: int, *, request_id: str = "", model: str = "") -> list[dict[str, Any]]:
        """Newest first; of one request or model where they are named."""
        found: list[dict[str, Any]] = []
        for kept in reversed(self._ring):
            if len(found) >= count:
                break
            if (not request_id or kept.request_id == request_id) and (not model or kept.model == model):
                found.append({**kept._asdict(), "plan": decision(kept.plan)})
        return found

    def __len__(self) -> int:
        return len(self._ring)

    def __repr__(self) -> str:
        return f"Decisions({len(self)} of {self.made})"


def replay(told: Mapping[str, Any], weights: Mapping[str, float] | None = None) -> list[str]:
    """The engines that the explained decision's scores put first, more than one where a lot decided; with other
    `weights` (by scorer), those that would have been. Raises ValueError when a weighted scorer's scores are not told.
    """
    used = told["weights"] if weights is None else weights
    totals: dict[str, float] = {}
    for candidate in told["candidates"]:
        missing = used.keys() - candidate["scores"].keys()
        if missing:
            raise ValueError(f"the decision has no scores of {', '.join(sorted(missing))}")
        totals[candidate["engine"]] = sum(weight * candidate["scores"][name] for name, weight in used.items())
    best = max(totals.values(), default=0.0)
    return [engine for engine, total in totals.items() if total >= best - EQUAL]
