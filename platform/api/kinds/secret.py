"""Secret: small confidential values, such as a provider's API key. Kubernetes' `v1` Secrets are taken as they are.

The resource API tells its names and never its values; only hekla's own ingress gets those (`platform/api/hiding.py`).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from pydantic import Field

from hekla.platform.api.hiding import HIDDEN
from hekla.platform.api.meta import ApiModel, Json
from hekla.platform.api.registry import Column, Kind
from hekla.platform.api.wording import path_of
from hekla.platform.base.errors import FieldError

SECRET_BYTES_MAX = 2**20
"""All values of one Secret; Kubernetes' limit."""

_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


class SecretSpec(ApiModel):
    type: str = Field(default="Opaque", max_length=253)
    """Free text, kept."""
    data: dict[str, str] = Field(default_factory=dict)
    """Values in base64."""
    string_data: dict[str, str] = Field(default_factory=dict)
    """Values as they are; they go before those of `data`."""
    immutable: bool = False
    """Refuses every change; delete it and make a new one."""


def value_of(secret: Json, key: str) -> bytes | None:
    """The value of a key; None without it. Raises ValueError when it is not base64."""
    spec = secret.get("spec") or {}
    plain = (spec.get("stringData") or {}).get(key)
    if plain is not None:
        return str(plain).encode()
    coded = (spec.get("data") or {}).get(key)
    return None if coded is None else base64.b64decode(coded, validate=True)


def _check(new: Json, old: Json | None) -> list[FieldError]:
    return [*_change_problems(new, old), *_value_problems(new["spec"])]


def _change_problems(new: Json, old: Json | None) -> Iterator[FieldError]:
    before = (old or {}).get("spec") or {}
    if before.get("immutable") and before != new["spec"]:
        yield FieldError("spec", "the Secret is immutable; delete it and make a new one")


def _value_problems(spec: Json) -> Iterator[FieldError]:
    """What is wrong, without a word of the values."""
    size = 0
    for field in ("data", "stringData"):
        for key, value in (spec.get(field) or {}).items():
            path = path_of((key,), f"spec.{field}")
            size += len(value.encode())
            if not _KEY.fullmatch(key):
                yield FieldError(path, "is no key; allowed: up to 253 letters, digits, '-', '_' and '.'")
            if value == HIDDEN:
                yield FieldError(path, "was hidden from you; leave the key out to keep nothing, or give its value")
            elif field == "data" and not _is_base64(value):
                yield FieldError(path, "is not base64; allowed: base64, or the value itself in stringData")
    if size > SECRET_BYTES_MAX:
        yield FieldError("spec", f"holds {size} bytes; allowed: at most {SECRET_BYTES_MAX}")


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _keys(obj: Json) -> str:
    spec = obj.get("spec") or {}
    return ",".join(sorted({*(spec.get("data") or ()), *(spec.get("stringData") or ())}))


KIND = Kind(
    group="hekla.io",
    version="v1alpha1",
    kind="Secret",
    plural="secrets",
    spec=SecretSpec,
    check=_check,
    hidden=("data", "stringData"),
    columns=(Column("TYPE", "spec.type"), Column("KEYS", _keys)),
    doc="small confidential values; shown to nobody",
)
