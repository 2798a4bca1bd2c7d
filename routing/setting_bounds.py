"""What the settings' checks say of a number out of bounds. Below all settings, which can't import each other."""

from __future__ import annotations


def at_least(name: str, value: float, minimum: float) -> None:
    """Raises ValueError naming the setting, its value and what is allowed."""
    if value < minimum:
        raise ValueError(f"{name} is {value}; allowed: {minimum} or more")
