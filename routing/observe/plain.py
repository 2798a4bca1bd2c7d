"""Any of the ingress's nouns as JSON, with what is secret masked. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from enum import Enum
from math import isfinite
from typing import Any

MASK = "***"
SECRETS = frozenset({"secret", "token", "password", "api_key", "apikey", "credential", "authorization", "x-api-key"})
"""Names of fields and headers whose values are never shown."""
DEPTH_MAX = 12
_PASSWORD_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def plain(value: Any, secrets: AbstractSet[str] = SECRETS, depth: int = 0) -> Any:
    """Dataclasses and named tuples as objects, what has no form of its own as its `repr`."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, str):
        return _PASSWORD_IN_URL.sub(MASK, value)
    if depth >= DEPTH_MAX:
        return "…"
    if isinstance(value, Enum):
        return plain(value.value, secrets, depth + 1)
    named = _named(value)
    if named is not None:
        return {str(name): _field(str(name), inner, secrets, depth) for name, inner in named.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner, secrets, depth + 1) for inner in value]
    return _PASSWORD_IN_URL.sub(MASK, str(getattr(value, "pattern", None) or repr(value)))


def _named(value: Any) -> dict[Any, Any] | None:
    if isinstance(value, Mapping):
        return {"/".join(map(str, name)) if isinstance(name, tuple) else name: inner for name, inner in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {spec.name: getattr(value, spec.name) for spec in fields(value)}
    return value._asdict() if isinstance(value, tuple) and hasattr(value, "_asdict") else None


def _field(name: str, value: Any, secrets: AbstractSet[str], depth: int) -> Any:
    if name.lower() in secrets and isinstance(value, str | bytes) and value:
        return MASK
    return plain(value, secrets, depth + 1)
