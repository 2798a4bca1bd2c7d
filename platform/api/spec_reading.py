"""From a spec's JSON to its model, looking past mistakes that can be mended so that one answer names as many as possible."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from hekla.platform.api.kubetypes import ADMISSION
from hekla.platform.api.meta import ApiModel
from hekla.platform.api.registry import Kind
from hekla.platform.api.wording import Location, allowed_fields, field_errors, nearest, path_of, unknown_field
from hekla.platform.base.errors import FieldError


def read_spec(kind: Kind, raw: Any) -> tuple[ApiModel | None, list[FieldError]]:
    """The spec's model, and what is wrong with it.

    With mistakes that can be mended (a misspelt field, `"3"` for 3) there is a model nonetheless: the rules across
    fields are asked of it, so that their answers come along with the mistakes.
    """
    try:
        return kind.spec.model_validate(raw, strict=True, by_alias=True, by_name=False, context=ADMISSION), []
    except ValidationError as error:
        respelt, problems = _respelt(kind, raw, error)
        try:
            kind.spec.model_validate(respelt, strict=True, by_alias=True, by_name=False, context=ADMISSION)
        except ValidationError as rest:
            problems += field_errors(rest, kind.spec, "spec")
            respelt = _without_unknown(respelt, rest)
    try:
        return kind.spec.model_validate(respelt, by_alias=True, by_name=False), problems
    except ValidationError:
        return None, problems


def _respelt(kind: Kind, raw: Any, error: ValidationError) -> tuple[Any, list[FieldError]]:
    """A copy in which a field that is missing gets the value of the misspelt one beside it; and the misspellings."""
    copied = copy.deepcopy(raw)
    problems: list[FieldError] = []
    missing = {found["loc"] for found in error.errors(include_url=False) if found["type"] == "missing"}
    for *place, name in _unknown(error):
        allowed = allowed_fields(kind.spec, tuple(place))
        meant = nearest(str(name), allowed)
        if meant is not None and (*place, meant) in missing:
            missing.discard((*place, meant))
            parent = _at(copied, place)
            parent[meant] = parent.pop(name)
            problems.append(FieldError(path_of((*place, name), "spec"), unknown_field(str(name), allowed)))
    return copied, problems


def _without_unknown(raw: Any, error: ValidationError) -> Any:
    copied = copy.deepcopy(raw)
    for *place, name in _unknown(error):
        del _at(copied, place)[name]
    return copied


def _unknown(error: ValidationError) -> list[Location]:
    return [found["loc"] for found in error.errors(include_url=False) if found["type"] == "extra_forbidden"]


def _at(value: Any, place: Iterable[str | int]) -> Any:
    for step in place:
        value = value[step]
    return value
