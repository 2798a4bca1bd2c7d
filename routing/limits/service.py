"""Rate limits in one ingress replica: what a request takes, and what it gives back when it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

from hekla.platform.base.clock import Clock
from hekla.routing.admission.estimate import OutputEstimator
from hekla.routing.exchange import Exchange
from hekla.routing.limits.headers import standing_headers
from hekla.routing.limits.limiter import Exceeded, Grant, Limiter, Standing
from hekla.routing.limits.rules import Asking
from hekla.routing.limits.settings import LimitRule, RateLimitSettings
from hekla.routing.limits.sharing import Ledger
from hekla.routing.refusal import Refusal
from hekla.routing.view import LazyView

ERROR_KINDS = {
    "requests": "rate_limit",
    "input_tokens": "input_rate_limit",
    "output_tokens": "output_rate_limit",
}
"""`error_type` of the access log and of metrics, as the reference names them."""


class Counter(Protocol):
    """`prometheus_client.Counter`."""

    def labels(self, *values: str) -> Counter: ...
    def inc(self) -> None: ...


_UNLIMITED = contextlib.nullcontext()


class RateLimits:
    """`hold` frames a request's service; `ledger` is what the gossip tells of it."""

    def __init__(
        self, settings: RateLimitSettings, *, outputs: OutputEstimator, exceeded: Counter, clock: Clock
    ) -> None:
        self._outputs, self._exceeded, self._clock = outputs, exceeded, clock
        self.on_service: Callable[[str, float], None] = lambda key, amount: None
        """Told of whatever other replicas have taken, by its key: admission picks out what is its own."""
        self.ledger = Ledger(
            silence_s=settings.silence_s,
            apply=self._hear,
            adopt=lambda key, used, now_s: self.limiter.at_least_used(key, used, now_s),
            used=lambda key, now_s: self.limiter.used(key, now_s),
        )
        self.limiter = Limiter(
            settings, share=lambda: self.ledger.share(clock.monotonic()),
            used_elsewhere=self.ledger.used_elsewhere, on_taken=self.ledger.taken,
        )  # fmt: skip

    def _hear(self, key: str, amount: float, now_s: float) -> None:
        self.limiter.taken_elsewhere(key, amount, now_s)
        self.on_service(key, amount)

    def hold(self, exchange: Exchange, view: LazyView) -> contextlib.AbstractContextManager[None]:
        """Takes what the matched request needs, and when it has ended replaces that with the truth. Raises Refusal 429."""
        if not self.limiter.rules and _route_limit(exchange) is None:
            return _UNLIMITED
        return self._hold(exchange, view)

    @contextlib.contextmanager
    def _hold(self, exchange: Exchange, view: LazyView) -> Iterator[None]:
        asking = self._asking(exchange, view)
        grant = self._take(exchange, view, asking)
        try:
            yield
        finally:
            if grant.taken:
                self._end(grant, exchange, asking)

    def _asking(self, exchange: Exchange, view: LazyView) -> Asking:
        caller, match = exchange.caller, exchange.match
        return Asking(
            model=view.model, route="" if match is None else match.route.key,
            tenant=caller.tenant, user=caller.user, key=caller.key_id, input_tokens=view.estimated_tokens,
            output_tokens=self._outputs.estimate(view.model, view.tenant, view.output_tokens_max),
        )  # fmt: skip

    def _take(self, exchange: Exchange, view: LazyView, asking: Asking) -> Grant:
        now_s = self._clock.monotonic()
        try:
            grant = self.limiter.take(asking, now_s, route=_route_limit(exchange))
            if grant.taken:
                self._tell(exchange, asking, now_s)
            return grant
        except Exceeded as error:
            self._tell(exchange, asking, now_s)
            kind = error.limit.kind
            self._exceeded.labels(view.model, kind, exchange.path_label).inc()
            never = error.retry_after_s is None
            raise Refusal(
                429, str(error), kind=ERROR_KINDS[kind],
                code="prompt_above_rate_limit" if never else "rate_limit_exceeded", retry_after_s=error.retry_after_s,
            ) from error  # fmt: skip

    def standing(self, exchange: Exchange, view: LazyView) -> list[Standing]:
        """How the limits stand that hold for a matched request, which takes nothing."""
        asking = self._asking(exchange, view)
        return self.limiter.standing(asking, self._clock.monotonic(), route=_route_limit(exchange))

    def _tell(self, exchange: Exchange, asking: Asking, now_s: float) -> None:
        standing = exchange.story.limits = self.limiter.standing(asking, now_s, route=_route_limit(exchange))
        exchange.added_headers.extend(standing_headers(standing))

    def use(self, settings: RateLimitSettings) -> None:
        """Other rules from the next request on."""
        self.limiter.use(settings)
        self.ledger.use(silence_s=settings.silence_s)

    def _end(self, grant: Grant, exchange: Exchange, asking: Asking) -> None:
        now_s, usage = self._clock.monotonic(), exchange.usage
        if usage is not None:
            self.limiter.settle(grant, usage.prompt_tokens, usage.completion_tokens, now_s)
        elif not exchange.upstream_attempts:
            self.limiter.refund(grant, now_s)
        elif exchange.first_byte_s is None or exchange.upstream_status >= 400:
            self.limiter.settle(grant, 0, 0, now_s)  # it was asked and counts, but nothing was generated for it
        else:
            self.limiter.settle(grant, asking.input_tokens, asking.output_tokens, now_s)


def _route_limit(exchange: Exchange) -> LimitRule | None:
    return None if exchange.match is None else exchange.match.route.rate_limit
