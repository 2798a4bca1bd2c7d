"""What every cluster refuses before it acts, in the same words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hekla.platform.cluster.interface import ActorSpec, Bundle

BUNDLES_MAX = 1024
"""Bundles in one placement group: far above any role replica, below what slows Ray's head."""

KWARGS_BYTES_MAX = 1 << 20
"""JSON of an actor's constructor arguments: 1 MiB; weights and data do not travel this way."""

GRANULARITY = 10_000
"""Ray counts resources in ten-thousandths."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,251}[A-Za-z0-9])?")


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"name {name!r}: 1 to 253 letters, digits, '.', '_', '-' or '/', a letter or digit at both ends"
        )


def checked_bundles(bundles: Sequence[Bundle]) -> list[dict[str, float]]:
    """The bundles' resources without zeros; ValueError names the bundle, the resource and what is allowed."""
    if not 1 <= len(bundles) <= BUNDLES_MAX:
        raise ValueError(f"bundles: {len(bundles)} given, 1 to {BUNDLES_MAX} allowed")
    return [_checked(f"bundles[{index}]", bundle.resources) for index, bundle in enumerate(bundles)]


def _checked(where: str, resources: Mapping[str, float]) -> dict[str, float]:
    for name, amount in resources.items():
        if not 0 <= amount < float("inf"):
            raise ValueError(f"{where}.resources[{name!r}]: {amount!r} given, a number of at least 0 allowed")
    kept = {name: float(amount) for name, amount in resources.items() if round(amount * GRANULARITY)}
    if not kept:
        raise ValueError(f"{where}.resources: nothing asked for; a bundle needs at least one resource above 0")
    return kept


def checked_kwargs(spec: ActorSpec) -> dict[str, Any]:
    """The constructor's arguments as their JSON copy; ValueError when they are not JSON or too large."""
    try:
        text = json.dumps(dict(spec.kwargs), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"actor {spec.name!r}: kwargs must be JSON values: {error}") from error
    if len(text) > KWARGS_BYTES_MAX:
        raise ValueError(f"actor {spec.name!r}: kwargs are {len(text)} bytes, {KWARGS_BYTES_MAX} allowed")
    copied: dict[str, Any] = json.loads(text)
    return copied
