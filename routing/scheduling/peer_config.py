"""The scheduler's configuration file, `routing.yaml`: Kthena's router configuration with its names, and ours. Pure.

    scheduler:
      pluginConfig:
      - name: least-request
        args: {maxWaitingRequests: 10}
      plugins:
        Filter: {enabled: [least-request], disabled: [lora-affinity]}
        Score:  {enabled: [{name: cost, weight: 1}]}
    auth: {issuer: ..., audiences: [...], jwksUri: ...}

Kthena ignores names it does not know, makes negative weights zero and drops `random` beside others. Here they are
errors that name what is known, so that a file either does what it says or is refused; `random` beside others is taken
at its weight.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from hekla.routing.config import SchedulingSettings
from hekla.routing.scheduling.catalog import FILTERS, SCORERS

BYTES_MAX = 2**20
"""A ConfigMap holds no more."""

OLD_FILTERS = {"least-request": "waiting"}
OLD_SCORERS = {"gpu-usage": "kv-usage", "kvcache-aware": "kv-cache"}
OLD_ARGUMENTS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "least-request": {"maxWaitingRequests": ("waiting", "waiting_max")},
    "least-latency": {"TTFTTPOTWeightFactor": ("least-latency", "alpha")},
    "prefix-cache": {"topKMatches": ("prefix-cache", "top_k")},
}
"""By the plugin's old name and the argument's: ours."""
WITHOUT_EFFECT: Mapping[str, Collection[str]] = {
    "prefix-cache": ("blockSizeToHash", "maxBlocksToMatch", "maxHashCacheSize"),
    "kvcache-aware": ("blockSizeToHash", "maxBlocksToMatch", "vllmTokenizerPort", "sglangTokenizerPort"),
}
"""About indexes that are the ingress's own here (`prefix` in its settings), whatever the plugins."""


@dataclass(frozen=True)
class ConfigFile:
    scheduling: SchedulingSettings
    auth: Mapping[str, Any] = field(default_factory=dict)
    """As it stands in the file, once its fields are known to be `issuer`, `audiences` and `jwksUri`."""
    without_effect: tuple[str, ...] = ()
    """What the file sets that means nothing here."""


def read_config(text: str, base: SchedulingSettings) -> ConfigFile:
    """`base` gives what the file does not say. Raises ValueError naming the field, the value and what is allowed."""
    if len(text.encode()) > BYTES_MAX:
        raise ValueError(f"the file has {len(text.encode())} bytes; allowed: {BYTES_MAX}")
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"the file is not YAML: {error}") from error
    top = _mapping("the file", document, ("scheduler", "auth"))
    auth = _mapping("auth", top.get("auth"), ("issuer", "audiences", "jwksUri"))
    scheduler = _mapping("scheduler", top.get("scheduler"), ("pluginConfig", "plugins"))
    arguments, without_effect = _arguments(scheduler.get("pluginConfig"))
    plugins = _mapping("scheduler.plugins", scheduler.get("plugins"), ("Filter", "Score"))
    filters = _filters(plugins.get("Filter"), base.filters)
    scorers = _scorers(plugins.get("Score"), base.scorers)
    enabled = {*filters, *(name for name, _ in scorers)}
    # An argument of a plugin that is not enabled is kept out: Kthena's shipped file configures some it does not enable.
    kept = {name: args for name, args in arguments.items() if name in enabled}
    return ConfigFile(replace(base, filters=filters, scorers=scorers, args=kept), auth, tuple(without_effect))


def _filters(section: Any, base: tuple[str, ...]) -> tuple[str, ...]:
    if section is None:
        return base
    at = "scheduler.plugins.Filter"
    fields = _mapping(at, section, ("enabled", "disabled"))
    enabled = [_filter_name(f"{at}.enabled", name) for name in _list(f"{at}.enabled", fields.get("enabled"))]
    disabled = {_filter_name(f"{at}.disabled", name) for name in _list(f"{at}.disabled", fields.get("disabled"))}
    # Engines that just failed are left out unless the file says otherwise: Kthena has no such filters to name.
    own = [name for name in base if name not in enabled and name in ("ready", "circuit", "capacity")]
    return tuple(name for name in [*own, *enabled] if name not in disabled)


def _scorers(section: Any, base: tuple[tuple[str, float], ...]) -> tuple[tuple[str, float], ...]:
    if section is None:
        return base
    at = "scheduler.plugins.Score"
    fields = _mapping(at, section, ("enabled", "disabled"))
    found = []
    for i, entry in enumerate(_list(f"{at}.enabled", fields.get("enabled"))):
        place = f"{at}.enabled[{i}]"
        named = _mapping(place, {"name": entry} if isinstance(entry, str) else entry, ("name", "weight"))
        name = _known(f"{place}.name", OLD_SCORERS.get(str(named.get("name")), named.get("name")), SCORERS, OLD_SCORERS)
        weight = named.get("weight", 1)
        if not isinstance(weight, (int, float)) or isinstance(weight, bool) or not 0 <= weight < float("inf"):
            raise ValueError(f"{place}.weight is {weight!r}; allowed: a number of 0 or more")
        found.append((name, float(weight)))
    if not found:
        raise ValueError(f"{at}.enabled is empty; allowed: one scorer or more")
    if len({name for name, _ in found}) < len(found):
        raise ValueError(f"{at}.enabled names a scorer twice: {', '.join(name for name, _ in found)}")
    return tuple(found)


def _filter_name(place: str, name: Any) -> str:
    return _known(place, OLD_FILTERS.get(str(name), name), FILTERS, OLD_FILTERS)


def _arguments(section: Any) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """By our plugin names; and what has no effect."""
    found: dict[str, dict[str, Any]] = {}
    idle: list[str] = []
    for i, entry in enumerate(_list("scheduler.pluginConfig", section)):
        place = f"scheduler.pluginConfig[{i}]"
        fields = _mapping(place, entry, ("name", "args"))
        name = fields.get("name")
        own = _known(
            f"{place}.name", OLD_SCORERS.get(str(name), name), {**FILTERS, **SCORERS}, {**OLD_FILTERS, **OLD_SCORERS}
        )
        for key, value in _mapping(f"{place}.args", fields.get("args"), None).items():
            if key in WITHOUT_EFFECT.get(str(name), ()):
                idle.append(f"{place}.args.{key}")
                continue
            plugin, argument = OLD_ARGUMENTS.get(str(name), {}).get(key, (own, key))
            found.setdefault(plugin, {})[argument] = value
    return found, idle


def _known(place: str, name: Any, known: Collection[str], old: Collection[str]) -> str:
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"{place} is {name!r}; known: {', '.join(sorted({*known, *old}))}")
    return name


def _mapping(place: str, value: Any, allowed: Collection[str] | None) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{place} is {type(value).__name__}; allowed: a mapping")  # noqa: TRY004  # a bad file is a ValueError
    for key in value:
        if allowed is not None and key not in allowed:
            raise ValueError(f"{place} has {key!r}; known: {', '.join(sorted(allowed))}")
    return value


def _list(place: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{place} is {type(value).__name__}; allowed: a list")  # noqa: TRY004
    return value
