"""Choosing engines for a request: one, or a prefill and a decode engine of one ServingGroup. Pure.

KV moves only inside a ServingGroup (its engines share the group label), so a pair never crosses groups: first the
best decode engine among groups that still have a prefill engine to try, then the best prefill engine of its group.

A request of several sequences (`n` above 1, a batch of prompts) goes to a decode engine alone: an engine's prefill
answer names the KV of one sequence, and the others would be continued from it as well, or from blocks freed already.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from hekla.routing.backend import Backend, ModelServer, PrefillGroup
from hekla.routing.load import LoadBook
from hekla.routing.scheduling.candidates import Candidates, Pool
from hekla.routing.scheduling.decision import Decision
from hekla.routing.scheduling.interface import Candidate, RequestView
from hekla.routing.scheduling.pipeline import Meter, Profile

PAIR_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Where prefill and decode are separate requests; all else goes to a decode engine alone."""


class NothingReady(Exception):
    """No engine is ready for the ModelServer."""


class AllTried(Exception):
    """Every ready engine has been tried for this request."""


@dataclass(frozen=True)
class Plan:
    """Where to send a request: `server` answers the client, `prefill` (if any) goes first."""

    server: Candidate
    decision: Decision
    prefill: Candidate | None = None


POOLS_MAX = 1024
"""Sets of engines kept; a table has one per ModelServer, and with groups two more per group."""


class Planner:
    """Binds the scheduling profile to the live load. `profile` may be replaced at any time."""

    def __init__(self, profile: Profile, loads: LoadBook, timer: Callable[[], float]) -> None:
        self.profile, self._loads, self._timer = profile, loads, timer
        self._pools: dict[int, tuple[tuple[Backend, ...], Pool]] = {}
        """By the identity of a table's tuple of engines, which is kept here too so that it stays its own."""
        self._decoders: dict[int, tuple[object, tuple[Backend, ...]]] = {}

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
        self._decoders.clear()

    def _plan_groups(self, server: ModelServer, request: RequestView, tried: Collection[str], meter: Meter) -> Plan:
        groups = tuple((server.groups or {}).values())
        if not groups:
            raise NothingReady
        spent = [group for group in groups if all(b.key in tried for b in group.prefill)] if tried else []
        left_out = {*tried, *(b.key for group in spent for b in group.decode)}
        decode = self._choose(self._decode_engines(server, groups), request, left_out, meter)
        if request.path not in PAIR_PATHS or not request.is_one_sequence:
            return Plan(decode.chosen, decode)
        home = next(group for group in groups if decode.chosen.backend in group.decode)
        prefill = self._choose(home.prefill, request, tried, meter)
        return Plan(decode.chosen, decode, prefill.chosen)

    def _decode_engines(self, server: ModelServer, groups: tuple[PrefillGroup, ...]) -> tuple[Backend, ...]:
        """Of all groups: one tuple for as long as the table stays the same."""
        known = self._decoders.get(id(server.groups))
        if known is None or known[0] is not server.groups:
            if len(self._decoders) >= POOLS_MAX:
                self._decoders.clear()
            found = tuple(backend for group in groups for backend in group.decode)
            known = self._decoders[id(server.groups)] = (server.groups, found)
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
