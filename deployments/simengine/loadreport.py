"""The engine's load on its answers (ORCA), for routers that would rather not poll: asked for by a request header."""

from __future__ import annotations

import msgspec

from hekla.deployments.simengine.core import EngineCore

ASKED_BY, SENT_AS = b"endpoint-load-metrics-format", b"endpoint-load-metrics"


def load_report(form: str, core: EngineCore) -> str | None:
    """Value of the header in the form asked for, TEXT or JSON; None for any other."""
    values = {"kv_cache_usage_perc": float(core.pool.usage), "num_requests_waiting": float(core.waiting)}
    match form.lower():
        case "text":
            return "TEXT " + ", ".join(f"named_metrics.{name}={value}" for name, value in values.items())
        case "json":
            return "JSON " + msgspec.json.encode({"named_metrics": values}).decode()
        case _:
            return None
