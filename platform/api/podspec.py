"""Checks raw Kubernetes pod specs against a generated table of their fields.

A pod template stays the JSON its author wrote, so that nothing of it is lost on the way to Kubernetes; this module only
says what is wrong with it. The table (`podspec_fields.json`) is made by `scripts/generate-podspec`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from hekla.platform.api.meta import Json
from hekla.platform.api.names import dns_label_problem
from hekla.platform.api.quantity import parse_quantity
from hekla.platform.api.wording import path_of, shown, unknown_field, wrong_type
from hekla.platform.base.errors import FieldError

CONTAINERS_MAX = 64
"""Containers of one pod template."""

_SCALARS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "text"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "intstr": ((int, str), "a whole number or text"),
}


@cache
def _types() -> dict[str, dict[str, str]]:
    table = json.loads((Path(__file__).parent / "podspec_fields.json").read_text())
    types: dict[str, dict[str, str]] = table["types"]
    return types


def type_problems(kind: str, value: Any, path: str) -> list[FieldError]:
    """What is wrong with a value of a type of the table: `PodSpec`, `[]EnvVar`, `{}quantity`, …"""
    return list(_problems(kind, value, path))


def pod_spec_problems(spec: Any, path: str) -> list[FieldError]:
    """Everything wrong with a raw PodSpec: its fields and types, its containers, their names and images."""
    problems = type_problems("PodSpec", spec, path)
    if not isinstance(spec, dict):
        return problems
    if spec.get("containers") == []:
        problems.append(FieldError(f"{path}.containers", "has no entries; allowed: 1 or more"))
    for field in ("containers", "initContainers"):
        problems.extend(_container_problems(spec.get(field), f"{path}.{field}"))
    return problems


def image_problem(image: Any) -> str | None:
    if isinstance(image, str) and re.search(r"\s", image):
        return f"{shown(image)} holds whitespace; allowed: an image reference such as registry/name:tag"
    return None


def _problems(kind: str, value: Any, path: str) -> Iterator[FieldError]:
    if kind.startswith("[]"):
        yield from _list_problems(kind[2:], value, path)
    elif kind.startswith("{}"):
        yield from _map_problems(kind[2:], value, path)
    elif kind == "quantity":
        yield from _quantity_problems(value, path)
    elif kind in _SCALARS:
        classes, wanted = _SCALARS[kind]
        # In Python a bool is an int; in JSON it is not.
        if not isinstance(value, classes) or (isinstance(value, bool) and kind != "bool"):
            yield FieldError(path, wrong_type(value, wanted))
    elif kind != "any":
        yield from _object_problems(_types()[kind], value, path)


def _list_problems(kind: str, value: Any, path: str) -> Iterator[FieldError]:
    if not isinstance(value, list):
        yield FieldError(path, wrong_type(value, "a list"))
        return
    for index, item in enumerate(value):
        yield from _problems(kind, item, f"{path}[{index}]")


def _map_problems(kind: str, value: Any, path: str) -> Iterator[FieldError]:
    if not isinstance(value, dict):
        yield FieldError(path, wrong_type(value, "an object"))
        return
    for key, item in value.items():
        yield from _problems(kind, item, path_of((key,), path))


def _object_problems(fields: dict[str, str], value: Any, path: str) -> Iterator[FieldError]:
    if not isinstance(value, dict):
        yield FieldError(path, wrong_type(value, "an object"))
        return
    for name, kind in fields.items():
        if kind.endswith("!") and value.get(name) is None:
            yield FieldError(f"{path}.{name}", "required")
    for name, item in value.items():
        if name not in fields:
            yield FieldError(path_of((name,), path), unknown_field(name, fields))
        elif item is not None:
            yield from _problems(fields[name].removesuffix("!"), item, f"{path}.{name}")


def _quantity_problems(value: Any, path: str) -> Iterator[FieldError]:
    try:
        amount = parse_quantity(value)
    except ValueError as error:
        yield FieldError(path, str(error))
        return
    if amount < 0:
        yield FieldError(path, f"{shown(value)} is negative; allowed: 0 or more")


def _container_problems(containers: Any, path: str) -> Iterator[FieldError]:
    if not isinstance(containers, list):
        return
    if len(containers) > CONTAINERS_MAX:
        yield FieldError(path, f"has {len(containers)} entries; allowed: at most {CONTAINERS_MAX}")
    items = [(index, item) for index, item in enumerate(containers) if isinstance(item, dict)]
    uses = Counter(str(item.get("name")) for _, item in items)
    for index, item in items:
        at = f"{path}[{index}]"
        name = item.get("name")
        if isinstance(name, str) and (problem := dns_label_problem(name)):
            yield FieldError(f"{at}.name", problem)
        if name is not None and uses[str(name)] > 1:
            yield FieldError(f"{at}.name", f"{shown(name)} is used {uses[str(name)]} times; allowed: unique names")
        if problem := image_problem(item.get("image")):
            yield FieldError(f"{at}.image", problem)
        yield from _port_problems(item, at)


def _port_problems(container: Json, path: str) -> Iterator[FieldError]:
    ports = container.get("ports")
    for index, port in enumerate(ports if isinstance(ports, list) else ()):
        number = port.get("containerPort") if isinstance(port, dict) else None
        if isinstance(number, int) and not isinstance(number, bool) and not 1 <= number <= 65535:
            yield FieldError(f"{path}.ports[{index}].containerPort", f"{number} is not a port; allowed: 1 to 65535")
