"""What one wire format can say and the other can't. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from hekla.platform.api.wording import shown

Json = dict[str, Any]


class Untranslatable(Exception):
    """A field of a request has no counterpart, or not the shape its format gives it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field, self.problem = field, problem


class AnswerUntranslatable(Exception):
    """An answer that is not what its format promises."""


def refuse_others(obj: Mapping[str, Any], known: Collection[str], path: str, to: str) -> None:
    """Raises Untranslatable for a field that is neither known nor null."""
    for name, value in obj.items():
        if name not in known and value is not None:
            raise Untranslatable(_at(path, name), f"can't be translated for {to}")


def refuse_unless(value: Any, allowed: Collection[Any], path: str, to: str) -> None:
    """Raises Untranslatable for a value that asks for what the other format has not; None asks for nothing."""
    if value is not None and not any(value == one and type(value) is type(one) for one in allowed):
        named = ", ".join(shown(one) for one in allowed)
        raise Untranslatable(path, f"is {shown(value)}; for {to} allowed: {named}, or unset")


def an_object(value: Any, path: str) -> Json:
    if not isinstance(value, dict):
        raise Untranslatable(path, f"is {shown(value)}; allowed: an object")
    return value


def a_list(value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise Untranslatable(path, f"is {shown(value)}; allowed: a list")
    return value


def a_text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise Untranslatable(path, f"is {shown(value)}; allowed: text")
    return value


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def set_if(target: Json, name: str, value: Any) -> None:
    if value is not None:
        target[name] = value
