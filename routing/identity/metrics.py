"""Metrics of identity."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from hekla.routing.identity.interface import Caller
from hekla.routing.usage import Usage

PREFIX = "hekla_router_"
TENANTS_MAX = 4096
"""Tenants with series of their own; further ones are counted together as `other`."""
OTHER = "other"


class IdentityMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._authentications = Counter(
            PREFIX + "authentications_total", "Credentials judged", ("method", "outcome"), registry=registry
        )
        self._requests = Counter(
            PREFIX + "tenant_requests_total", "Requests answered", ("tenant", "model", "status_code"), registry=registry
        )
        self._tokens = Counter(
            PREFIX + "tenant_tokens_total", "Tokens by the engine's count", ("tenant", "model", "token_type"),
            registry=registry,
        )  # fmt: skip
        self._tenants: set[str] = set()

    def accepted(self, caller: Caller) -> None:
        method = "none" if caller.is_anonymous else "api_key" if caller.key_id else "token"
        self._authentications.labels(method, "ok").inc()

    def refused(self, code: str) -> None:
        self._authentications.labels("", code).inc()

    def finished(self, caller: Caller, model: str, status: int, usage: Usage | None) -> None:
        tenant = self._label(caller.tenant)
        self._requests.labels(tenant, model, str(status)).inc()
        if usage is not None:
            counts = {"input": usage.prompt_tokens, "cached": usage.cached_tokens, "output": usage.completion_tokens}
            for kind, count in counts.items():
                self._tokens.labels(tenant, model, kind).inc(count)

    def _label(self, tenant: str) -> str:
        if tenant in self._tenants:
            return tenant
        if len(self._tenants) >= TENANTS_MAX:
            return OTHER
        self._tenants.add(tenant)
        return tenant
