"""Is a value plain JSON, and of a bearable depth? What arrives from YAML or another process may not be.

`json_problems` is asked first; everything after it may rely on text keys and on a depth that recursion can take.
"""

from __future__ import annotations

import math
from typing import Any

from hekla.platform.api.wording import path_of, shown
from hekla.platform.base.errors import FieldError

DEPTH_MAX = 64
"""Levels of nesting of an object: manifests have about 15."""

VALUES_MAX = 200_000
"""Objects, lists and scalars in one object, each counted as often as it appears: a YAML alias may repeat a large one."""


def excess_problem(value: Any) -> str | None:
    """Why a value is too deep or too large to work on; found without recursion and in bounded memory."""
    layer: list[Any] = [value]
    count = 1
    for _ in range(DEPTH_MAX + 1):
        parents = [item for item in layer if isinstance(item, (dict, list))]
        count += sum(len(parent) for parent in parents)
        if count > VALUES_MAX:
            return f"holds too many values; allowed: at most {VALUES_MAX}"
        layer = [child for parent in parents for child in (parent.values() if isinstance(parent, dict) else parent)]
        if not layer:
            return None
    return f"is nested too deeply; allowed: at most {DEPTH_MAX} levels"


def without_nulls(value: Any) -> Any:
    """A copy in which no object has a null field: to Kubernetes clients null means unset."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def json_problems(value: Any) -> list[FieldError]:
    """What of a value can't be kept as JSON: too deep or large, keys that are no text, dates, NaN, half of a character."""
    if problem := excess_problem(value):
        return [FieldError("", problem)]
    problems: list[FieldError] = []
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        path, item = waiting.pop()
        if isinstance(item, dict):
            keys = [key for key in item if not isinstance(key, str) or not _is_unicode(key)]
            problems.extend(FieldError(path, _key_problem(key)) for key in keys)
            waiting.extend((path_of((key,), path), child) for key, child in item.items() if key not in keys)
        elif isinstance(item, list):
            waiting.extend((f"{path}[{index}]", child) for index, child in enumerate(item))
        elif (problem := _scalar_problem(item)) is not None:
            problems.append(FieldError(path, problem))
    return problems


def _key_problem(key: object) -> str:
    text = str(key).lower() if isinstance(key, bool) else str(key)
    return (
        f'the key {text!a} is not text; quote it: "{text}"' if not isinstance(key, str) else "a key is not Unicode text"
    )


def _scalar_problem(item: object) -> str | None:
    if item is None or isinstance(item, (bool, int)):
        return None
    if isinstance(item, str):
        return None if _is_unicode(item) else "is not Unicode text: it holds half of a character"
    if isinstance(item, float):
        return None if math.isfinite(item) else f"{item} is not a number that JSON has"
    return f"is a {type(item).__name__}, which JSON does not have; quote it: {shown(str(item))}"


def _is_unicode(text: str) -> bool:
    """False for half of a surrogate pair, which JSON can spell and UTF-8 can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
