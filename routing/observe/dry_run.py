"""`x-hekla-explain: body`: what would happen to a request now, without asking an engine or taking of a limit."""

from __future__ import annotations

import msgspec

from hekla.platform.base.clock import Clock
from hekla.routing.admission.gate import Gate, PlanFirst
from hekla.routing.exchange import Exchange
from hekla.routing.limits.service import RateLimits
from hekla.routing.observe.explanation import Json, decision, explanation
from hekla.routing.plan import AllTried, NothingReady
from hekla.routing.refusal import Refusal
from hekla.routing.scheduling.interface import Busy
from hekla.routing.traffic.engines import Prepare, aim
from hekla.routing.view import LazyView


class DryRun:
    def __init__(self, plan: PlanFirst, prepare: Prepare, limits: RateLimits, gate: Gate, clock: Clock) -> None:
        self._plan, self._prepare, self._limits, self._gate, self._clock = plan, prepare, limits, gate, clock

    async def answer(self, exchange: Exchange, view: LazyView) -> None:
        """Answers 200 with the explanation. Raises Refusal where the request's own body is malformed."""
        story, match = exchange.story, exchange.match
        story.limits = self._limits.standing(exchange, view)
        server = None if match is None else match.server
        if server is not None:
            story.queue_length = self._gate.length(server)
        planned = await self._planned(exchange, view)
        told = {"dry_run": True, **explanation(exchange, self._clock.monotonic()), **planned}
        await exchange.answer(200, msgspec.json.encode(told))

    async def _planned(self, exchange: Exchange, view: LazyView) -> Json:
        match = exchange.match
        if match is None or match.server is None:
            return {"refused": "the target is no ModelServer that exists"}
        aim(view, match)
        await self._prepare(view, match.server)
        view.now_s = self._clock.monotonic()
        try:
            plan = self._plan(exchange, match.server, view)
        except NothingReady:
            return {"refused": "no engine is ready"}
        except AllTried:
            return {"refused": "every ready engine is left out"}
        except Busy as busy:
            return {"refused": str(busy), "filter": busy.filter_name}
        except Refusal as refusal:
            return {"refused": refusal.log_message}
        return {"decision": decision(plan)}
