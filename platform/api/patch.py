"""JSON merge patch (RFC 7386)."""

from __future__ import annotations

import copy
from typing import Any

from hekla.platform.api.plain_json import excess_problem
from hekla.platform.base.errors import BadRequest


def merge_patch(target: Any, patch: Any) -> Any:
    """`target` with `patch` applied: objects merge, null removes, everything else replaces (RFC 7386 §2).

    Changes neither argument. Raises BadRequest when the patch is nested too deeply or holds too much.
    """
    if problem := excess_problem(patch):
        raise BadRequest(f"the patch {problem}")
    return _merged(target, patch)


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = copy.deepcopy(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value)
    return result
