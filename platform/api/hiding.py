"""Values that the resource API tells nobody but hekla's own ingress. Pure.

Nothing that a person or a program can ask prints them: no get, no watch, no describe. They lie in the store as they are,
in files that only their owner reads (0600): a key to encrypt them with would have to lie beside them.
"""

from __future__ import annotations

from hekla.platform.api.meta import Json
from hekla.platform.api.registry import all_kinds

HIDDEN = "(hidden)"
"""Stands for a value. It is no base64, and admission refuses it, so that what was read can't be written back by mistake."""

REVEAL_HEADER = "x-hekla-reveal"
"""On requests of the ingress, which needs the values. The ingress takes it off its clients' requests."""


def without_hidden(obj: Json) -> Json:
    """The object as it may be shown; a list with each of its items so. The object itself when it hides nothing."""
    if isinstance(obj.get("items"), list):
        kind = str(obj.get("kind", "")).removesuffix("List")
        return {**obj, "items": [_masked(item, kind) for item in obj["items"]]}
    return _masked(obj, str(obj.get("kind", "")))


def _masked(obj: Json, kind: str) -> Json:
    known = all_kinds().get(kind)
    if known is None or not known.hidden or not isinstance(obj.get("spec"), dict):
        return obj
    masked = {name: dict.fromkeys(obj["spec"].get(name) or (), HIDDEN) for name in known.hidden}
    return {**obj, "spec": {**obj["spec"], **{name: value for name, value in masked.items() if value}}}


def from_kubernetes(obj: Json) -> Json:
    """A `v1` Secret of Kubernetes as hekla's own: the same fields, under `spec`. Anything else as it is."""
    if obj.get("apiVersion") != "v1" or obj.get("kind") != "Secret" or "spec" in obj:
        return obj
    spec = {name: obj[name] for name in ("type", "data", "stringData", "immutable") if obj.get(name) is not None}
    rest = {name: value for name, value in obj.items() if name not in ("type", "data", "stringData", "immutable")}
    return {**rest, "apiVersion": all_kinds()["Secret"].api_version, "spec": spec}
