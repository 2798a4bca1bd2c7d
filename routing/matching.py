"""ModelRoute rules: which request a rule is for, and which of its targets a random number picks. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hekla.platform.api.meta import Json
from hekla.platform.api.patterns import Pattern, compiled
from hekla.routing.backend import ServerKey
from hekla.routing.limits.rules import route_rule
from hekla.routing.limits.settings import LimitRule
from hekla.routing.traffic.sessions import SessionPolicy, policy_of
from hekla.routing.traffic.sticky import rendezvous


@dataclass(frozen=True)
class StringMatch:
    """Exact, then prefix, then regex: the first that is set decides alone; none set matches everything."""

    exact: str | None = None
    prefix: str | None = None
    regex: Pattern | None = None

    def matches(self, value: str) -> bool:
        if self.exact is not None:
            return value == self.exact
        if self.prefix is not None:
            return value.startswith(self.prefix)
        # Unanchored, as the resource API's other implementations match.
        return self.regex is None or self.regex.search(value) is not None


@dataclass(frozen=True)
class Target:
    name: str
    weight: int
    external: bool = False
    """An ExternalModelProvider instead of a ModelServer."""


@dataclass(frozen=True)
class Mirror:
    """A shadow that gets copies of a rule's requests."""

    name: str
    """Of a ModelServer."""
    share: float
    """In [0, 1]."""


@dataclass(frozen=True)
class Rule:
    name: str
    targets: tuple[Target, ...]
    headers: tuple[tuple[str, StringMatch], ...] = ()
    uri: StringMatch | None = None
    model: str | None = None
    failover: tuple[Target, ...] = ()
    """Who serves when the chosen target can't, in this order."""
    mirror: Mirror | None = None

    def matches(self, model: str, path: str, headers: Mapping[str, str]) -> bool:
        if self.model is not None and self.model != model:
            return False
        if self.uri is not None and not self.uri.matches(path):
            return False
        return all(name in headers and match.matches(headers[name]) for name, match in self.headers)

    def pick(self, random: float) -> Target:
        """The target at `random` in [0, 1) of the summed weights; a weight of 0 is never picked."""
        left = random * sum(target.weight for target in self.targets)
        chosen = next(target for target in self.targets if target.weight > 0)
        for target in self.targets:
            if target.weight > 0:
                chosen = target
                left -= target.weight
                if left < 0:
                    break
        return chosen

    def pick_for(self, session: str) -> Target:
        """The session's own target: the same at every replica, and as the weights say over many sessions.

        Weighted rendezvous hashing: a weight that grows takes sessions from the others and moves nobody else, so that a
        canary's ramp flips no conversation twice.
        """
        live = [target for target in self.targets if target.weight > 0]
        return min(live, key=lambda target: -math.log(1 - rendezvous(session, target.name)) / target.weight)


@dataclass(frozen=True)
class Route:
    key: str
    """`namespace/name` of the ModelRoute."""
    namespace: str
    model: str
    adapters: tuple[str, ...]
    rules: tuple[Rule, ...]
    created: tuple[str, int, str]
    """Sorts the oldest first."""
    sticky: SessionPolicy | None = None
    rate_limit: LimitRule | None = None

    def rule_for(self, model: str, path: str, headers: Mapping[str, str]) -> Rule | None:
        return next((rule for rule in self.rules if rule.matches(model, path, headers)), None)

    def server_key(self, target: Target) -> ServerKey:
        return (self.namespace, target.name)


def route_of(obj: Json) -> Route:
    """Raises ValueError naming the field that makes the route unusable."""
    meta, spec = obj["metadata"], obj.get("spec") or {}
    namespace = meta.get("namespace") or "default"
    version = str(meta.get("resourceVersion") or "0")
    return Route(
        key=f"{namespace}/{meta['name']}",
        namespace=namespace,
        model=spec.get("modelName") or "",
        adapters=tuple(spec.get("loraAdapters") or ()),
        rules=tuple(_rule_of(f"spec.rules[{i}]", rule) for i, rule in enumerate(spec.get("rules") or ())),
        sticky=policy_of(spec.get("sessionSticky")),
        rate_limit=route_rule(f"{namespace}/{meta['name']}", spec),
        created=(meta.get("creationTimestamp") or "", int(version) if version.isdigit() else 0, meta["name"]),
    )


def _rule_of(path: str, rule: Json) -> Rule:
    match = rule.get("modelMatch") or {}
    headers = match.get("headers") or {}
    uri = match.get("uri")
    return Rule(
        name=rule.get("name") or "",
        targets=_targets_of(f"{path}.targetModels", rule.get("targetModels") or []),
        headers=tuple((name.lower(), _string_match(f"{path}.headers[{name}]", m)) for name, m in headers.items()),
        uri=None if uri is None else _string_match(f"{path}.modelMatch.uri", uri),
        model=(match.get("body") or {}).get("model") or None,
        failover=_failover_of(f"{path}.failover", rule.get("failover") or []),
        mirror=_mirror_of(f"{path}.mirror", rule.get("mirror")),
    )


def _failover_of(path: str, targets: list[Json]) -> tuple[Target, ...]:
    found = _targets_of(path, [{**target, "weight": None} for target in targets]) if targets else ()
    return tuple(dict.fromkeys(found))


def _mirror_of(path: str, mirror: Json | None) -> Mirror | None:
    if not mirror:
        return None
    percent = mirror.get("percent")
    share = 1.0 if percent is None else float(percent) / 100
    if not mirror.get("modelServerName") or not 0 <= share <= 1:
        raise ValueError(f"{path}: needs modelServerName, and a percent of 0 to 100")
    return Mirror(mirror["modelServerName"], share) if share else None


def _targets_of(path: str, targets: list[Json]) -> tuple[Target, ...]:
    weights = [target.get("weight") for target in targets]
    if any(weight is None for weight in weights) and any(weight is not None for weight in weights):
        raise ValueError(f"{path}: weights must be set on all targets or on none")
    found = []
    for target, weight in zip(targets, weights, strict=True):
        external = target.get("externalModelProviderName")
        name = external or target.get("modelServerName")
        if not name or (external and target.get("modelServerName")):
            raise ValueError(f"{path}: needs exactly one of modelServerName and externalModelProviderName")
        found.append(Target(name, 100 if weight is None else int(weight), bool(external)))
    if sum(target.weight for target in found) <= 0:
        raise ValueError(f"{path}: the total weight is 0; it must be above 0")
    return tuple(found)


def _string_match(path: str, match: Json) -> StringMatch:
    regex = match.get("regex") or None
    try:
        pattern = None if regex is None else compiled(regex)
    except ValueError as error:
        raise ValueError(f"{path}.regex {regex!r} does not compile: {error}") from error
    return StringMatch(match.get("exact") or None, match.get("prefix") or None, pattern)
