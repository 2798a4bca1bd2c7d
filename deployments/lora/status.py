"""What a ModelServer's status says of its adapters. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from hekla.deployments.lora.model import Adapter, Placement
from hekla.deployments.lora.reading import Pool, adapters_on, name_of
from hekla.platform.api.meta import Condition, Json, set_condition

CONDITION_ADAPTERS = "AdaptersReady"

REASON_LOADED = "Loaded"
REASON_LOADING = "Loading"
REASON_FAILED = "LoadFailed"
REASON_DISABLED = "LoraDisabled"
REASON_NO_ENGINE = "NoEngine"
REASON_NO_ROOM = "NoRoom"

SHOWN_MAX = 5
"""Failures that a condition's message names."""


def status_of(server: Json, pool: Pool, placement: Placement, failures: Mapping[str, list[str]], now: str) -> Json:
    """The ModelServer's status with `loraAdapters` and the condition renewed; `failures` by adapter."""
    shown = [_shown(adapter, pool, placement, failures) for adapter in pool.adapters]
    reason, message = _verdict(pool, shown, failures)
    condition = Condition(
        type=CONDITION_ADAPTERS, status="True" if reason == REASON_LOADED else "False", reason=reason, message=message,
        observed_generation=server["metadata"].get("generation"),
    )  # fmt: skip
    old = server.get("status") or {}
    return {
        **old,
        "loraAdapters": shown,
        "conditions": set_condition(list(old.get("conditions") or ()), condition, now),
    }


def without_adapters(server: Json) -> Json:
    """The status of a ModelServer that declares none any more."""
    old = dict(server.get("status") or {})
    for name in ("loraAdapters", "loraDemand"):
        old.pop(name, None)
    kept = [one for one in old.get("conditions") or () if one.get("type") != CONDITION_ADAPTERS]
    return {**old, "conditions": kept} if "conditions" in old else old


def _shown(adapter: Adapter, pool: Pool, placement: Placement, failures: Mapping[str, list[str]]) -> Json:
    loaded, moving = [], []
    for engine in (engine for engines in pool.hosts.values() for engine in engines):
        state = adapters_on(engine).get(adapter.name, {}).get("state")
        if state == "Loaded":
            loaded.append(name_of(engine))
        elif state is not None and state != "Failed":
            moving.append(f"{name_of(engine)} {state}")
    found: Json = {
        "name": adapter.name,
        "engines": sorted(loaded),
        "wanted": sum(adapter.name in names for names in placement.values()),
    }
    if moving:
        found["moving"] = sorted(moving)
    if failures.get(adapter.name):
        found["message"] = "; ".join(failures[adapter.name][:SHOWN_MAX])
    return found


def _verdict(pool: Pool, shown: list[Json], failures: Mapping[str, list[str]]) -> tuple[str, str]:
    failed = [f"{name} on {text}" for name, texts in sorted(failures.items()) for text in texts]
    if failed:
        more = f"; and {len(failed) - SHOWN_MAX} more" if len(failed) > SHOWN_MAX else ""
        return REASON_FAILED, "; ".join(failed[:SHOWN_MAX]) + more
    if not pool.hosts:
        if pool.without_lora:
            names = ", ".join(pool.without_lora[:SHOWN_MAX])
            return REASON_DISABLED, f"{names} run without --enable-lora; the engines' arguments need it"
        return REASON_NO_ENGINE, "no engine that the selector finds is ready"
    by_name = {adapter.name: adapter for adapter in pool.adapters}
    short = [one for one in shown if one["wanted"] < by_name[one["name"]].replicas_min]
    if short:
        return REASON_NO_ROOM, f"there are no free slots for {_names(short)}: raise --max-loras, or add engines"
    loading = [one for one in shown if not one["engines"] and one["wanted"]]
    if loading:
        return REASON_LOADING, f"{_names(loading)} not loaded yet"
    resident = sum(bool(one["engines"]) for one in shown)
    return REASON_LOADED, f"{resident} of {len(shown)} adapters are loaded; the others when they are asked for"


def _names(shown: list[Json]) -> str:
    names = [one["name"] for one in shown]
    return ", ".join(names[:SHOWN_MAX]) + ("…" if len(names) > SHOWN_MAX else "")
