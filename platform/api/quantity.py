"""Kubernetes quantities: `100m`, `2Gi`, `1e3`. The grammar is the one of the Kubernetes API reference ("Quantity")."""

from __future__ import annotations

import re
from decimal import Decimal

QUANTITY_CHARS_MAX = 64
"""Longer text is no quantity anybody wrote on purpose."""

EXPONENT_MAX = 30
"""Decimal exponents beyond this (either sign) exceed what any resource can be."""

_BINARY = {suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)}
_DECIMAL = {suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"), start=1)}
_SMALL = {"n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1)}
_FACTORS = _BINARY | _DECIMAL | _SMALL

_SHAPE = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))"
    r"(?:(?P<suffix>[KMGTPE]i|[numkMGTPE])|[eE](?P<exponent>[+-]?[0-9]{1,3}))?"
)


def parse_quantity(value: str | float) -> Decimal:
    """The exact number behind a quantity, in its base unit (cores, bytes, pieces). Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(_refusal(value))  # noqa: TRY004 (callers handle one error)
    text = str(value)
    match = _SHAPE.fullmatch(text) if len(text) <= QUANTITY_CHARS_MAX else None
    if match is None:
        raise ValueError(_refusal(text[:QUANTITY_CHARS_MAX]))
    number = Decimal(match["number"])
    exponent = int(match["exponent"] or 0)
    if abs(exponent) > EXPONENT_MAX:
        raise ValueError(f"exponent {exponent} is out of range; allowed: -{EXPONENT_MAX} to {EXPONENT_MAX}")
    return number.scaleb(exponent) * _FACTORS[match["suffix"] or ""]


def quantity_float(value: str | float) -> float:
    """A quantity as a float: cores for `cpu`, bytes for `memory`. Raises ValueError."""
    return float(parse_quantity(value))


def _refusal(value: object) -> str:
    return f"{value!r} is not a quantity; allowed: a number with an optional suffix, such as 2, 0.5, 100m, 2Gi, 1e3"
