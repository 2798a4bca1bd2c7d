"""Choosing engines for a request: one, or a prefill and a decode engine. Pure.

KV moves inside a ServingGroup (its engines share the group label), or where the ModelServer says so across its whole
pool (`pdGroup.scope`). Whether a prompt is computed on the decode engine or on a prefill engine is decided request by
request (`hekla.routing.pairs.prices`).

A request of several sequences (`n` above 1, a batch of prompts) goes to a decode engine alone: an engine's prefill
answer names the KV of one sequence, and the others would be continued from it as well, or from blocks freed already.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from hekla.routing.backend import Backend, ModelServer
from hekla.routing.connectors.catalog import CONNECTORS
from hekla.routing.load import LoadBook
from hekla.routing.pairs.choice import Ask, NoPair, PairChooser
from hekla.routing.pairs.partners import Partners
from hekla.routing.pairs.settings import DisaggregationSettings
from hekla.routing.plan import AllTried, NothingReady, Plan
from hekla.routing.scheduling.candidates import Candidates, Pool
from hekla.routing.scheduling.decision import Decision
from hekla.routing.scheduling.interface import RequestView
from hekla.routing.scheduling.pipeline import Meter, Profile

__all__ = ["AllTried", "NothingReady", "Plan", "Planner"]

PAIR_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Where prefill and decode are separate requests; all else goes to a decode engine alone."""
POOLS_MAX = 1024
"""Sets of engines kept; a table has one per ModelServer, with prefill/decode groups three."""


class Planner:
    """Binds the scheduling profile to the live load. `profile` may be replaced at any time."""

    def __init__(
        self, profile: Profile, loads: LoadBook, timer: Callable[[], float],
        settings: DisaggregationSettings = DisaggregationSettings(),
    ) -> None:  # fmt: skip
        self.profile, self._loads, self._timer = profile, loads, timer
        self.pairs = PairChooser(settings)
        self._pools: dict[int, tuple[tuple[Backend, ...], Pool]] = {}
        """By the identity of a table's tuple of engines, which is kept here too so that it stays its own."""
        self._partners: dict[int, tuple[object, Partners]] = {}

    def plan(self, server: ModelServer, request: RequestView, tried: Collection[str], meter: Meter) -> Plan:
        """Raises NothingReady, AllTried, or Busy (from the filters)."""
        if server.groups is not None:
            return self._plan_groups(server, request, tried, meter)
        if not server.backends:
            raise NothingReady
        decision = self._choose(server.backends, request, tried, meter)
        return Plan(decision.chosen, decision)

    def forget(self) -> None:
        """A new table has come: what was kept of the engines of older ones goes."""
        self._pools.clear()
        self._partners.clear()

    def _plan_groups(self, server: ModelServer, request: RequestView, tried: Collection[str], meter: Meter) -> Plan:
        if not server.groups:
            raise NothingReady
        partners, connector = self._partners_of(server), CONNECTORS.get(server.connector)
        decode = Candidates(self._pool(partners.decode)).without(tried)
        if not decode:
            raise AllTried
        own, configured = server.local_prefill_tokens_max, self.pairs.settings.local_prefill_tokens_max
        ask = Ask(
            request, partners, decode, Candidates(self._pool(partners.prefill)).without(tried),
            configured if own is None else own, connector is not None and connector.is_concurrent, self._timer, meter,
        )  # fmt: skip
        can_pair = request.path in PAIR_PATHS and request.is_one_sequence
        try:
            chosen = (self.pairs.choose if can_pair else self.pairs.alone)(self.profile, ask)
        except NoPair:
            raise AllTried from None
        return Plan(chosen.decision.chosen, chosen.decision, chosen.prefill, chosen.verdict)

    def _partners_of(self, server: ModelServer) -> Partners:
        """The same for as long as the table stays the same."""
        known = self._partners.get(id(server.groups))
        if known is None or known[0] is not server.groups:
            if len(self._partners) >= POOLS_MAX:
                self._partners.clear()
            connector = CONNECTORS.get(server.connector)
            may_be_local = connector is None or connector.leaves_decode_able
            made = Partners((server.groups or {}).values(), may_be_local=may_be_local)
            known = self._partners[id(server.groups)] = (server.groups, made)
        return known[1]

    def _choose(
        self, backends: tuple[Backend, ...], request: RequestView, tried: Collection[str], meter: Meter
    ) -> Decision:
        candidates = Candidates(self._pool(backends)).without(tried)
        if not candidates:
            raise AllTried
        return self.profile.schedule(request, candidates, self._timer, meter)

    def _pool(self, backends: tuple[Backend, ...]) -> Pool:
        known = self._pools.get(id(backends))
        if known is None or known[0] is not backends or not known[1].is_current:
            if len(self._pools) >= POOLS_MAX:
                self._pools.clear()
            known = self._pools[id(backends)] = (backends, Pool.of(backends, self._loads))
        return known[1]
