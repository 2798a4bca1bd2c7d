"""Revisions: a hash of what makes an engine what it is, so that scaling never rolls and a changed template always does."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from hekla.platform.api.meta import Json

_SCALING_FIELDS = ("replicas", "maxUnavailable", "partition")
HASH_CHARS = 10
"""40 bits: the few revisions one ModelServing keeps never meet, and names stay short."""


def content_hash(value: Any) -> str:
    """The same short hex text for the same JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_CHARS]


def role_template(role: Json) -> Json:
    """A role without the fields that say how many and how fast."""
    return {key: value for key, value in role.items() if key not in _SCALING_FIELDS}


def role_hash(role: Json) -> str:
    return content_hash(role_template(role))


def revision_of(roles: list[Json]) -> str:
    """The revision of a role set; the order in which roles are written does not matter."""
    return content_hash(sorted((role_template(role) for role in roles), key=lambda role: str(role["name"])))
