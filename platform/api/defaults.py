"""Specs between JSON and models: nulls out on the way in, defaults filled on the way out."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from hekla.platform.api.meta import Json

DEPTH_MAX = 64
"""Levels of nesting of an object: manifests have about 15."""


def is_deeper(value: Any, levels: int) -> bool:
    """True when objects and lists nest more than `levels` deep; without recursion, so that any input is safe."""
    layer: list[Any] = [value]
    for _ in range(levels):
        layer = [
            child
            for parent in layer
            if isinstance(parent, (dict, list))
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not layer:
            return False
    return True


def without_nulls(value: Any) -> Any:
    """A copy in which no object has a null field: to Kubernetes clients null means unset."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def filled(model: BaseModel) -> Json:
    """A model as camelCase JSON with its defaults; unset and empty optional fields stay away, as their author left them."""
    result: Json = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        is_empty = value is None or value == [] or value == {}
        if is_empty and name not in model.model_fields_set:
            continue
        rendered = _rendered(value)
        # A default that is an object with nothing in it says nothing either.
        if rendered is None or (rendered == {} and name not in model.model_fields_set):
            continue
        result[field.alias or name] = rendered
    return result


def _rendered(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return filled(value)
    if isinstance(value, list):
        return [_rendered(item) for item in value]
    if isinstance(value, dict):
        return {key: _rendered(item) for key, item in value.items()}
    return value
