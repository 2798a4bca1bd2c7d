"""Identity in one ingress replica, wired: keys and tenants as the resource API has them, tokens, budgets, metrics."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry

from hekla.platform.api.meta import Json, Ref
from hekla.platform.base.clock import Clock
from hekla.platform.base.ids import Ids
from hekla.platform.base.tasks import TaskOwner
from hekla.routing.config import RoutingSettings
from hekla.routing.exchange import Exchange
from hekla.routing.following import Follower, Objects
from hekla.routing.identity import refusals
from hekla.routing.identity.authenticator import Doorkeeper, OpenDoor
from hekla.routing.identity.budgets import Ledger
from hekla.routing.identity.directory import Directory
from hekla.routing.identity.directory_building import DirectoryBuilder
from hekla.routing.identity.interface import INFERENCE, Authenticator, Caller, Subject
from hekla.routing.identity.jwks import Fetch, Jwks
from hekla.routing.identity.metrics import IdentityMetrics
from hekla.routing.identity.usage_reports import UsageReporter, UsageSink
from hekla.routing.openai_api import route_not_found
from hekla.routing.refusal import Refusal
from hekla.routing.source import ObjectSource

logger = logging.getLogger(__name__)

KINDS = ("Tenant", "ApiKey", "ModelRoute")
"""ModelRoutes for their prices."""


class Identity:
    """`admit` says who calls, `allow` whether they may use a model, `account` what it cost. With mode `off` all are open."""

    def __init__(
        self, settings: RoutingSettings, source: ObjectSource, *, fetch: Fetch, sink: UsageSink, clock: Clock, ids: Ids,
        registry: CollectorRegistry,
    ) -> None:  # fmt: skip
        self.settings, self._clock = settings.identity, clock
        self.is_on = self.settings.mode != "off"
        self.directory: Directory | None = None
        self._builder = DirectoryBuilder()
        self._seen: Mapping[Ref, Json] = {}
        self.jwks = Jwks(self.settings, fetch, clock)
        self.ledger = Ledger(ids.uid())
        self._door: Authenticator = OpenDoor()
        if self.is_on:
            self._door = Doorkeeper(
                self.settings, lambda: self.directory, self.jwks, retry_after_s=settings.retry_after_s
            )
        self._follower = Follower("identity", KINDS, source, settings.watch, clock=clock, ids=ids, build=self._learn)
        self._reporter = UsageReporter(self.ledger, sink, clock, self.settings.budget_report_s)
        self._metrics = IdentityMetrics(registry)
        self._tasks = TaskOwner("identity")

    @property
    def is_ready(self) -> bool:
        """Whether keys can be judged."""
        return not self.is_on or self.directory is not None

    def use(self, settings: RoutingSettings) -> None:
        """Other prices from now on; whoever may come in is decided at the start."""
        self.settings = settings.identity

    async def start(self) -> None:
        if self.is_on:
            await self._follower.start()
            await self.jwks.start()
            self._tasks.spawn(self._reporter.report_for_ever(), "budgets")

    async def stop(self) -> None:
        """Tells the resource API what was spent since the last report, if it can."""
        if self.is_on:
            await self._tasks.stop()
            await self._reporter.report()
            await self.jwks.stop()
            await self._follower.stop()

    def admit(self, exchange: Exchange, scope: str = INFERENCE) -> Caller:
        """The caller, also set on the exchange. Raises Refusal 401, 403, 503."""
        if not self.is_on:
            return exchange.caller
        try:
            caller = self._door.identify(exchange.raw_headers, self._clock.now())
            if not caller.has_scope(scope):
                raise refusals.no_credential() if caller.is_anonymous else refusals.scope_missing(scope)
        except Refusal as refusal:
            self._metrics.refused(refusal.code or "")
            raise
        self._metrics.accepted(caller)
        exchange.caller = caller
        return caller

    def allow(self, caller: Caller, model: str) -> None:
        """Raises Refusal: 404 for a model the caller may not use, 429 when a budget is spent.

        The 404 is the one for a model that does not exist: who may not use a model need not learn that it is there.
        """
        if not self.is_on:
            return
        if not caller.may_use(model):
            unknown = route_not_found(model)
            unknown.kind, unknown.log_message = "model_not_allowed", f"the caller may not use the model {model[:128]!r}"
            raise unknown
        now_s = self._clock.now()
        over = self.ledger.exceeded(caller, model, now_s)
        if over is not None:
            raise refusals.over_budget(over[0], reset_s=over[1], now_s=now_s)

    def account(self, exchange: Exchange, model: str) -> None:
        """Count a finished exchange; `model` is its label in metrics."""
        if not self.is_on or not exchange.caller.tenant:
            return
        caller, usage = exchange.caller, exchange.usage
        self._metrics.finished(caller, model, exchange.status, usage)
        if usage is not None and caller.budgets:
            price = self.directory.price(exchange.model, self.settings.prices) if self.directory else None
            self.ledger.charge(caller, exchange.model, usage, price, self._clock.now())

    def _learn(self, objects: Objects) -> None:
        seen = {ref: obj for kind in KINDS for ref, obj in objects[kind].items()}
        if self.directory is None or not _say_the_same(seen, self._seen):
            self._take(self._builder.build(*(objects[kind].values() for kind in KINDS)))
        self._seen = seen
        usages: dict[Subject, Any] = {}
        for kind in ("Tenant", "ApiKey"):
            for ref, obj in objects[kind].items():
                usages[Subject(ref.kind, ref.namespace, ref.name)] = (obj.get("status") or {}).get("usage") or {}
        self.ledger.learn(usages, self._clock.now())

    def _take(self, built: Directory) -> None:
        known: Any = self.directory.problems if self.directory is not None else {}
        for name in built.problems.keys() - known.keys():
            logger.warning("left out of identity: %s: %s", name, built.problems[name])
        if built != self.directory:
            self.directory = built

    def __repr__(self) -> str:
        return f"Identity(mode={self.settings.mode!r}, {self.directory!r})"


def _say_the_same(new: Mapping[Ref, Json], old: Mapping[Ref, Json]) -> bool:
    """True when nothing but statuses differs: every few seconds replicas write there what was spent."""
    return new.keys() == old.keys() and all(obj is old[ref] or _is_same(obj, old[ref]) for ref, obj in new.items())


def _is_same(new: Json, old: Json) -> bool:
    metas = [{**obj["metadata"], "resourceVersion": ""} for obj in (new, old)]
    return bool(new.get("spec") == old.get("spec") and metas[0] == metas[1])
