"""Engine arguments from a worker's `config` map. Pure."""

from __future__ import annotations

import json
from typing import Any

from hekla.platform.api.meta import Json

SERVED_NAME = "served-model-name"
NOT_ARGUMENTS = frozenset({"port", "host", "model", SERVED_NAME})
"""Set by hekla: engines get the node's address, a free port, and the model that the booster names."""


def normalized(config: Json) -> Json:
    """The same map with the engine's own spelling of the names: dashes."""
    return {key.replace("_", "-"): value for key, value in config.items()}


def served_name(config: Json) -> str | None:
    """`served-model-name`, the first of several; None when the config has none."""
    value = normalized(config).get(SERVED_NAME)
    first = value[0] if isinstance(value, list) and value else value
    return str(first).split()[0] if first else None


def engine_args(config: Json) -> list[str]:
    """`--key value` for each entry in the map's order; see `_one` for what the values mean."""
    return [
        word
        for key, value in normalized(config).items()
        if key not in NOT_ARGUMENTS
        for word in _one(f"--{key}", value)
    ]


def _one(flag: str, value: Any) -> list[str]:
    """ "" and true: a bare flag · false: `--no-flag` · null: left out · a list of texts: several values ·
    any other list or map: JSON · the rest as text, JSON strings untouched."""
    if value is None:
        return []
    if value is True or value == "":
        return [flag]
    if value is False:
        return [f"--no-{flag.removeprefix('--')}"]
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return [flag, *(str(item) for item in value)]
    if isinstance(value, dict | list):
        return [flag, json.dumps(value, separators=(",", ":"))]
    return [flag, str(value)]
