"""Whether an engine's forecast for a request still keeps what was promised. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from hekla.routing.admission.settings import Objective

STEP_MARGIN = 1.1
"""A step is forecast for the mean; the batch that it joins grows meanwhile."""


def objective_for(objectives: Sequence[Objective], model: str, priority: int) -> Objective | None:
    """The first that is for this model and class; None: nothing is demanded."""
    for objective in objectives:
        if objective.priority_min is not None and priority < objective.priority_min:
            continue
        if objective.model == "*" or fnmatchcase(model, objective.model):
            return objective
    return None


def is_kept(objective: Objective | None, *, ttft_s: float, step_s: float, kv_share: float) -> bool:
    """Whether these forecasts keep it. A number that is none (NaN) hinders nobody."""
    if objective is None:
        return True
    limits = ((ttft_s, objective.ttft_s), (STEP_MARGIN * step_s, objective.step_s), (kv_share, objective.kv_share))
    return not any(limit > 0 and forecast > limit for forecast, limit in limits)
