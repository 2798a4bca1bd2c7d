"""Which settings can change while the ingress runs, and what a change amounts to. Pure.

All can but those named here: sockets that are open, threads and tables that have been made with a size, and who may
come in at all.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from hekla.routing.config import RoutingSettings

RESTART = (
    "upstream.connections_max",
    "upstream.connect_timeout_s",
    "upstream.keepalive_s",
    "upstream.answer_held_bytes_max",
    "scheduling.config_file",
    "scheduling.reload_period_s",
    "gossip",
    "scrape.concurrency_max",
    "access_log.output",
    "watch",
    "traffic.sticky.sessions_max",
    "identity.mode",
    "identity.jwt",
    "identity.clock_skew_s",
    "identity.token_cache_max",
    "identity.token_cache_s",
    "identity.token_bytes_max",
    "identity.jwks_refresh_s",
    "identity.jwks_unknown_key_s",
    "identity.jwks_timeout_s",
    "identity.jwks_bytes_max",
    "identity.unknown_tenants",
    "identity.budget_report_s",
    "prefix.enabled",
    "prefix.approximate",
    "prefix.exact",
    "prefix.events",
    "prefix.tokeniser.threads",
    "prefix.tokeniser.cache_bytes_max",
    "disaggregation",
    "external",
    "translation",
    "observe.tracing",
    "observe.decisions_max",
)
"""Sections and settings; all else is live."""


@dataclass(frozen=True)
class Change:
    settings: RoutingSettings
    """What holds from now on."""
    held: tuple[str, ...]
    """Settings whose new value waits for a restart."""


def change(now: RoutingSettings, wanted: RoutingSettings) -> Change:
    """What may change of `now` towards `wanted`."""
    held: list[str] = []
    settings: RoutingSettings = _merged(now, wanted, "", held)
    # A scraper that does not run can't be told to, and one that runs can't be told never to.
    if bool(now.scrape.period_s) != bool(wanted.scrape.period_s):
        held.append("scrape.period_s")
        settings = replace(settings, scrape=now.scrape)
    return Change(settings, tuple(held))


def _merged(now: Any, wanted: Any, place: str, held: list[str]) -> Any:
    if now == wanted:
        return now
    if place in RESTART:
        held.append(place)
        return now
    if not is_dataclass(now) or isinstance(now, type):
        return wanted
    prefix = f"{place}." if place else ""
    parts = {
        spec.name: _merged(getattr(now, spec.name), getattr(wanted, spec.name), prefix + spec.name, held)
        for spec in fields(now)
    }
    return replace(now, **parts)
