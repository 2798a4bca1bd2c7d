"""pydantic's errors in plain words: a path as people write it, what is wrong, the value, what is allowed."""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from hekla.platform.base.errors import FieldError

SHOWN_CHARS_MAX = 80
"""Characters of a refused value that an error repeats."""

Location = tuple[str | int, ...]

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "bool_type": "true or false",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


def shown(value: Any) -> str:
    """A value as JSON, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "…"


def path_of(location: Iterable[str | int], root: str = "") -> str:
    """`("roles", 1, "name")` as `roles[1].name`; keys that hold dots or slashes go into brackets too."""
    path = root
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step.replace("-", "").replace("_", "").isalnum():
            path += f".{step}" if path else step
        else:
            path += f"[{json.dumps(step, ensure_ascii=False)}]"
    return path


def wrong_type(value: Any, wanted: str) -> str:
    """`must be text, got 8000; quote it: "8000"`."""
    hint = ""
    if wanted == "text" and isinstance(value, (bool, int, float)):
        hint = f'; quote it: "{shown(value)}"'
    return f"must be {wanted}, got {shown(value)}{hint}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that somebody who wrote `name` most likely meant."""
    by_lower = {one.lower(): one for one in known}
    written = name.lower().replace("_", "")
    near = difflib.get_close_matches(written, by_lower, n=1, cutoff=0.6)
    near = near or [one for one in by_lower if len(written) > 2 and written in one]
    return by_lower[near[0]] if near else None


def unknown_field(name: str, allowed: Iterable[str]) -> str:
    """What to say of a field nobody knows: the nearest known name first, then all of them."""
    known = sorted(allowed)
    near = nearest(name, known)
    guess = f'; did you mean "{near}"?' if near else ";"
    return f"unknown field{guess} allowed: {', '.join(known)}"


def field_errors(error: ValidationError, model: type[BaseModel], root: str) -> list[FieldError]:
    """Every problem pydantic found, with paths that begin at `root`."""
    problems: list[FieldError] = []
    for found in error.errors(include_url=False):
        path = path_of(_plain_location(found["loc"]), root)
        if found["type"] == "field_errors":
            problems.extend(FieldError(_joined(path, one.path), one.problem) for one in found["ctx"]["problems"])
        else:
            problems.append(FieldError(path, _problem(found, model)))
    return problems


def _joined(path: str, below: str) -> str:
    return path + below if not below or below[0] in ".[" else f"{path}.{below}"


def _plain_location(location: Location) -> Location:
    # pydantic marks a bad key of a mapping with a last step "[key]".
    return location[:-1] if location and location[-1] == "[key]" else location


def _problem(found: Mapping[str, Any], model: type[BaseModel]) -> str:
    kind, value, limits = found["type"], found["input"], found.get("ctx", {})
    if kind == "missing":
        return "required"
    if kind == "extra_forbidden":
        return unknown_field(str(found["loc"][-1]), allowed_fields(model, found["loc"][:-1]))
    if kind in _WANTED:
        return wrong_type(value, _WANTED[kind])
    if kind == "value_error":
        return str(limits["error"])
    return _limit_problem(kind, value, limits) or f"{shown(value)} is not allowed here ({kind})"


def _limit_problem(kind: str, value: Any, limits: Mapping[str, Any]) -> str | None:
    match kind:
        case "literal_error":
            allowed = limits["expected"].replace("'", "").replace(" or ", ", ")
            return f"{shown(value)} is not one of the choices; allowed: {allowed}"
        case "string_pattern_mismatch":
            return f"{shown(value)} does not have the right form; allowed: text that matches {limits['pattern']}"
        case "greater_than_equal":
            return f"{value} is too small; allowed: {limits['ge']} or more"
        case "less_than_equal":
            return f"{value} is too large; allowed: {limits['le']} or less"
        case "string_too_long":
            return f"{shown(value)} has {len(value)} characters; allowed: at most {limits['max_length']}"
        case "string_too_short":
            return f"{shown(value)} is too short; allowed: at least {limits['min_length']} characters"
        case "too_long":
            return f"has {limits['actual_length']} entries; allowed: at most {limits['max_length']}"
        case "too_short":
            return f"has {limits['actual_length']} entries; allowed: at least {limits['min_length']}"
    return None


def allowed_fields(model: type[BaseModel], location: Location) -> list[str]:
    """The names (as clients write them) of the fields at a place inside a model."""
    found: Any = model
    for step in location:
        found = _inside(_unwrapped(found), step)
    found = _unwrapped(found)
    return [field.alias or name for name, field in found.model_fields.items()] if _is_model(found) else []


def _inside(annotation: Any, step: str | int) -> Any:
    if _is_model(annotation):
        fields = annotation.model_fields
        return next((f.annotation for name, f in fields.items() if step in (f.alias, name)), None)
    arguments = get_args(annotation)
    return arguments[-1] if arguments else None


def _unwrapped(annotation: Any) -> Any:
    """The annotation without `Annotated` and without `| None`."""
    if get_origin(annotation) is Annotated:
        return _unwrapped(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return _unwrapped(next(part for part in get_args(annotation) if part is not type(None)))
    return annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
