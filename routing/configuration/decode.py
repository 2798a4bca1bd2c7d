"""Builds frozen settings from what YAML has read, over a base that gives what is not said. Pure.

Every mistake is a ValueError that names the place, the value and what is allowed. The types are read from the
dataclasses themselves, so that a new setting can be set the moment it exists.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Settings = TypeVar("Settings")
SHOWN_CHARS_MAX = 120


def over(base: Settings, value: Any, place: str) -> Settings:
    """`base`, a settings dataclass, with the fields that the mapping `value` names."""
    return replace(base, **_given(type(base), value, place, base))  # type: ignore[type-var]


def _new(kind: type[Any], value: Any, place: str) -> Any:
    """An item of a list: nothing gives its fields but the value and their defaults."""
    given = _given(kind, value, place, None)
    needed = [spec.name for spec in fields(kind) if _is_needed(spec) and spec.name not in given]
    if needed:
        raise ValueError(f"{place} has no {needed[0]!r}; needed: {', '.join(needed)}")
    return kind(**given)


def _is_needed(spec: Field[Any]) -> bool:
    return spec.default is MISSING and spec.default_factory is MISSING


def _given(kind: type[Any], value: Any, place: str, base: Any) -> dict[str, Any]:
    if value is None:
        return {}
    known = [spec.name for spec in fields(kind)]
    hints, found = get_type_hints(kind), {}
    for name, inner in mapping(value, place).items():
        if name not in known:
            raise ValueError(f"{place or 'the file'} has {_shown(name)}{nearest(name, known)}")
        at = f"{place}.{name}" if place else str(name)
        before = getattr(base, name, None)
        is_section = is_dataclass(hints[name]) and before is not None
        found[str(name)] = over(before, inner, at) if is_section else _value(hints[name], inner, at)
    return found


def mapping(value: Any, place: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(place or "the file", value, "a mapping")
    return value


def nearest(name: Any, known: list[str]) -> str:
    """What to say of a name that is not known."""
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def _value(kind: Any, value: Any, place: str) -> Any:
    origin = get_origin(kind)
    if origin is Literal:
        return _one_of(get_args(kind), value, place)
    if origin in (Union, types.UnionType):
        inner = next(part for part in get_args(kind) if part is not type(None))
        return None if value is None else _value(inner, value, place)
    if origin is tuple:
        return _items(get_args(kind), value, place)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        key, inner = get_args(kind)
        return {
            _value(key, name, f"a name in {place}"): _value(inner, item, f"{place}.{name}")
            for name, item in mapping(value, place).items()
        }
    if isinstance(kind, type) and is_dataclass(kind):
        return _new(kind, value, place)
    return _plain(kind, value, place)


def _one_of(allowed: tuple[Any, ...], value: Any, place: str) -> Any:
    # YAML reads a bare `off` as false: where a choice is called off, that is what was meant.
    value = "off" if value is False and "off" in allowed else value
    if value not in allowed:
        raise _wrong(place, value, ", ".join(map(str, allowed)))
    return value


def _items(kinds: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    is_any_number = len(kinds) == 2 and kinds[1] is Ellipsis
    if is_any_number and isinstance(value, Mapping) and get_origin(kinds[0]) is tuple:
        value = [list(pair) for pair in value.items()]  # pairs may be written as a mapping
    if not isinstance(value, list):
        raise _wrong(place, value, "a list")
    if not is_any_number and len(value) != len(kinds):
        raise _wrong(place, value, f"a list of {len(kinds)}")
    each = (kinds[0],) * len(value) if is_any_number else kinds
    return tuple(_value(kind, item, f"{place}[{i}]") for i, (kind, item) in enumerate(zip(each, value, strict=True)))


def _plain(kind: Any, value: Any, place: str) -> Any:
    if kind is bool:
        if not isinstance(value, bool):
            raise _wrong(place, value, "true or false")
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            raise _wrong(place, value, "a number")
        return float(value)
    elif kind is int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong(place, value, "a whole number")
    elif kind is str and not isinstance(value, str):
        raise _wrong(place, value, "a text")
    return value


def _wrong(place: str, value: Any, allowed: str) -> ValueError:
    return ValueError(f"{place} is {_shown(value)}; allowed: {allowed}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "…"
