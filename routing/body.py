"""A request body as its top-level fields, each kept as the bytes the client sent. Pure.

Only the fields hekla edits are ever decoded, so numbers, key order and unknown fields reach the engine verbatim.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANY = msgspec.json.Decoder()
_encode = msgspec.json.encode


class MalformedBody(ValueError):
    """The body is not one JSON object."""


class Body:
    """An immutable JSON object."""

    __slots__ = ("fields", "raw")

    def __init__(self, raw: bytes, fields: Mapping[str, msgspec.Raw]) -> None:
        self.raw = raw
        self.fields = fields

    @classmethod
    def parse(cls, raw: bytes) -> Body:
        """Raises MalformedBody with the position of the mistake."""
        try:
            return cls(raw, _FIELDS.decode(raw))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise MalformedBody(str(error)) from error

    def __contains__(self, name: str) -> bool:
        """True when the field is there and not null."""
        return name in self.fields and not self._is(name, b"null")

    def get(self, name: str) -> Any:
        """The field decoded, None when absent. Raises MalformedBody when its text is not valid."""
        value = self.fields.get(name)
        if value is None:
            return None
        try:
            return _ANY.decode(value)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise MalformedBody(f"{name}: {error}") from error

    def is_true(self, name: str) -> bool:
        return self._is(name, b"true")

    def _is(self, name: str, literal: bytes) -> bool:
        value = self.fields.get(name)
        # A value can be megabytes long: compare lengths before copying it.
        return value is not None and memoryview(value).nbytes == len(literal) and bytes(value) == literal

    def edited(self, changes: Mapping[str, Any]) -> Body:
        """A copy with fields set to a value, a `msgspec.Raw`, or taken out with `msgspec.UNSET`."""
        fields = dict(self.fields)
        for name, value in changes.items():
            if value is msgspec.UNSET:
                fields.pop(name, None)
            else:
                fields[name] = value if isinstance(value, msgspec.Raw) else msgspec.Raw(_encode(value))
        parts = [b"%b:%b" % (_encode(name), bytes(value)) for name, value in fields.items()]
        return Body(b"{" + b",".join(parts) + b"}", fields)
