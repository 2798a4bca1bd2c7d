"""What the debug pages show, gathered from the parts of one ingress replica."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hekla.platform.base.clock import Clock
from hekla.routing.backend import Backend
from hekla.routing.load import LoadBook
from hekla.routing.observe.decisions import Decisions
from hekla.routing.observe.pages import DebugPages
from hekla.routing.observe.parts import Parts
from hekla.routing.observe.plain import SECRETS, plain
from hekla.routing.table import RoutingTable

BUDGETS_SHOWN = 1000
_SETTINGS_SECRETS = SECRETS | {"key"}
"""`gossip.key` is one; other objects' keys are names."""


def debug_pages(parts: Parts, decisions: Decisions, clock: Clock) -> DebugPages:
    objects = {
        "modelroutes": lambda: _routes(parts.table()),
        "modelservers": lambda: {server.name: server for server in parts.table().servers.values()},
        "pods": lambda: {key: _engine(parts, backend, clock) for key, backend in engines(parts.table()).items()},
    }
    pages = {
        "loads": lambda: {key: load_of(parts.loads, key) for key in sorted(parts.loads.engines)},
        "rates": lambda: {
            key: parts.scheduling.rates.rates(backend) for key, backend in engines(parts.table()).items()
        },
        "forecast_errors": lambda: parts.scheduling.rates.errors(),
        "breakers": lambda: parts.traffic.health.states(clock.monotonic()),
        "prefix": lambda: _prefix(parts),
        "queues": parts.gate.explain,
        "limits": lambda: {
            "rules": parts.limits.limiter.rules,
            "budgets": parts.limits.limiter.explain(clock.monotonic(), BUDGETS_SHOWN),
            "sharing": repr(parts.limits.ledger),
        },
        "sessions": lambda: {"remembered": len(parts.traffic.sessions)},
        "settings": lambda: _settings(parts),
        "problems": lambda: parts.table().problems,
    }
    return DebugPages(objects, pages, decisions)


def engines(table: RoutingTable) -> dict[str, Backend]:
    return {backend.key: backend for server in table.servers.values() for backend in server.backends}


def load_of(loads: LoadBook, key: str) -> dict[str, Any]:
    load = loads.load(key)
    return {
        "own": load.own, "peers": load.peers, "requests": load.requests, "running": load.running,
        "waiting": load.engine_waiting, "kv_usage": load.kv_usage, "ejected": load.ejected,
        "warmup_share": load.warmup_share,
    }  # fmt: skip


def _routes(table: RoutingTable) -> Mapping[str, Any]:
    found = [route for routes in (*table.routes.values(), *table.adapters.values()) for route in routes]
    return {route.key: route for route in found}


def _engine(parts: Parts, backend: Backend, clock: Clock) -> dict[str, Any]:
    """As Kthena's pod: the engine, its servers, and what is known of it."""
    servers = [s.name for s in parts.table().servers.values() if any(b.key == backend.key for b in s.backends)]
    return {
        "engine": backend,
        "modelservers": servers,
        "load": load_of(parts.loads, backend.key),
        "rates": parts.scheduling.rates.rates(backend),
        "breaker": parts.traffic.health.state(backend.key),
    }


def _prefix(parts: Parts) -> dict[str, Any]:
    approximate, exact = parts.prefix.approximate, parts.prefix.exact
    return {
        "approximate": {"entries": approximate.entries, "evicted": approximate.evicted},
        "approximate_by_engine": {key: approximate.entries_of(key) for key in engines(parts.table())},
        "exact": {"entries": exact.entries, "engines": sorted(exact.engines), "complete": sorted(exact.complete)},
    }


def _settings(parts: Parts) -> dict[str, Any]:
    return {**plain(parts.settings(), _SETTINGS_SECRETS), "awaiting_restart": parts.awaiting_restart()}
