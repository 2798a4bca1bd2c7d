"""The routing table: an immutable picture of routes, servers and ready engines. Pure.

A request resolves in steps: model → routes of that name, oldest first → first rule that matches → one target by
weight → ModelServer. Adapter (LoRA) names are looked up only when no route has that model name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from hekla.platform.api.meta import Json
from hekla.routing.backend import ModelServer, ServerKey, backend_of, server_of
from hekla.routing.lora.hosting import routable_adapters
from hekla.routing.matching import Route, Rule, Target, route_of


def no_session(route: Route) -> str:
    return ""


MALFORMED = (ValueError, TypeError, KeyError, AttributeError)
"""What reading an object raises whose fields have not the types admission gives them."""


@dataclass(frozen=True)
class Match:
    """What a request resolved to. `server` is None when the target names one that does not exist."""

    route: Route
    rule: Rule
    target: Target
    server: ModelServer | None
    is_adapter: bool
    session: str = ""
    """The conversation the request belongs to; empty when none is named."""
    is_failover: bool = False
    """The target is one of the rule's `failover`."""

    @property
    def later_targets(self) -> tuple[Target, ...]:
        """Those that would be asked next if this one can't serve, in order."""
        targets = self.rule.failover
        after = targets.index(self.target) + 1 if self.is_failover else 0
        own = (self.target.name, self.target.external)
        return tuple(target for target in targets[after:] if (target.name, target.external) != own)

    @property
    def upstream_model(self) -> str | None:
        """The name to put into the request; None: leave the client's."""
        if self.is_adapter or self.server is None or not self.server.model:
            return None
        return self.server.model


@dataclass(frozen=True)
class RoutingTable:
    routes: Mapping[str, tuple[Route, ...]] = field(default_factory=dict)
    """By model name, oldest first."""
    adapters: Mapping[str, tuple[Route, ...]] = field(default_factory=dict)
    """By LoRA adapter name, oldest first: of routes that list it, else of ModelServers that declare it routable."""
    servers: Mapping[ServerKey, ModelServer] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    """Objects left out, by `Kind namespace/name`, and why."""

    @property
    def models(self) -> tuple[str, ...]:
        """Every name a client may ask for, sorted."""
        return tuple(sorted({*self.routes, *self.adapters}))

    def knows(self, model: str) -> bool:
        return model in self.routes or model in self.adapters

    def match(
        self, model: str, path: str, headers: Mapping[str, str], random: float, *,
        session_of: Callable[[Route], str] = no_session,
    ) -> Match | None:  # fmt: skip
        """None when no route has a rule for the request. `random` in [0, 1) picks among weighted targets; a session
        picks its own. A target without a ready engine gives way to the first of the rule's `failover` that has one.
        """
        is_adapter = model not in self.routes
        for route in (self.adapters if is_adapter else self.routes).get(model, ()):
            rule = route.rule_for(model, path, headers)
            if rule is not None:
                session = session_of(route)
                target = rule.pick_for(session) if session else rule.pick(random)
                match = Match(route, rule, target, self._server(route, target), is_adapter, session)
                if not rule.failover or _can_serve(match):
                    return match
                return next((other for other in self.failovers(match) if _can_serve(other)), match)
        return None

    def failovers(self, match: Match) -> Iterator[Match]:
        """What the request resolves to when the target of `match` can't serve it: those that come after it, in order."""
        for target in match.later_targets:
            yield replace(match, target=target, server=self._server(match.route, target), is_failover=True)

    def shadow(self, match: Match) -> ModelServer | None:
        """The server that gets copies of the rule's requests, if there is one."""
        mirror = match.rule.mirror
        return None if mirror is None else self.servers.get((match.route.namespace, mirror.name))

    def _server(self, route: Route, target: Target) -> ModelServer | None:
        return None if target.external else self.servers.get(route.server_key(target))

    def __repr__(self) -> str:
        engines = sum(len(server.backends) for server in self.servers.values())
        return f"RoutingTable(models={len(self.models)}, servers={len(self.servers)}, backends={engines})"


def _can_serve(match: Match) -> bool:
    """Whether an external provider is well is not known here."""
    return match.target.external or (match.server is not None and match.server.is_ready)


def build_table(routes: Iterable[Json], servers: Iterable[Json], engines: Iterable[Json]) -> RoutingTable:
    """An object that can't be used is left out and named in `problems`; it never takes the others down."""
    problems: dict[str, str] = {}
    usable, servers = _usable_routes(routes, problems), list(servers)
    found = _servers(servers, engines, problems)
    listed = _index((adapter, route) for route in usable for adapter in route.adapters)
    return RoutingTable(
        routes=_index((route.model, route) for route in usable if route.model),
        adapters={**_index(routable_adapters(servers, found)), **listed},
        servers=found,
        problems=problems,
    )


def _usable_routes(objects: Iterable[Json], problems: dict[str, str]) -> list[Route]:
    found = []
    for obj in objects:
        # A route bound to a Gateway's listener isn't served on this one.
        if (obj.get("spec") or {}).get("parentRefs"):
            problems[_name(obj)] = "spec.parentRefs binds it to a Gateway"
            continue
        try:
            found.append(route_of(obj))
        except MALFORMED as error:
            problems[_name(obj)] = _why(error)
    return sorted(found, key=lambda route: (*route.created[:2], route.key))


def _servers(
    objects: Iterable[Json], engines: Iterable[Json], problems: dict[str, str]
) -> dict[ServerKey, ModelServer]:
    by_namespace: dict[str, list[Json]] = {}
    for engine in engines:
        try:
            backend_of(engine)
        except MALFORMED as error:
            problems[_name(engine)] = _why(error)
            continue
        by_namespace.setdefault(engine["metadata"].get("namespace") or "default", []).append(engine)
    found = {}
    for obj in objects:
        namespace = obj["metadata"].get("namespace") or "default"
        try:
            server = server_of(obj, by_namespace.get(namespace, []))
            found[server.key] = server
        except MALFORMED as error:
            problems[_name(obj)] = _why(error)
    return found


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if isinstance(error, (KeyError, AttributeError)) else str(error)


def _index(pairs: Iterable[tuple[str, Route]]) -> dict[str, tuple[Route, ...]]:
    found: dict[str, tuple[Route, ...]] = {}
    for name, route in pairs:
        found[name] = (*found.get(name, ()), route)
    return found


def _name(obj: Json) -> str:
    meta = obj["metadata"]
    return f"{obj.get('kind', '')} {meta.get('namespace') or 'default'}/{meta['name']}"
