"""From a spec's model back to JSON, with the defaults filled in."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from hekla.platform.api.meta import Json


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
