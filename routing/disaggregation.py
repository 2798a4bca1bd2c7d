"""Choosing engines for a request: one, or a prefill and a decode engine of one ServingGroup. Pure.

KV moves only inside a ServingGroup (its engines share the group label), so a pair never crosses groups: first the
best decode engine among groups that still have a prefill engine to try, then the best prefill engine of its group.

A request of several sequences (`n` above 1, a batch of prompts) goes to a decode engine alone: an engine's prefill
answer names the KV of one sequence, and the others would be continued from it as well, or from blocks freed already.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from hekla.routing.backend import Backend, ModelServer
from hekla.routing.load import LoadBook
from hekla.routing.scheduling.interface import Candidate, Decision, RequestView
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


class Planner:
    """Binds the scheduling profile to the live load."""

    def __init__(self, profile: Profile, loads: LoadBook, timer: Callable[[], float]) -> None:
        self._profile, self._loads, self._timer = profile, loads, timer

    def plan(self, server: ModelServer, request: RequestView, tried: Collection[str], meter: Meter) -> Plan:
        """Raises NothingReady, AllTried, or Busy (from the filters)."""
        if server.groups is not None:
            return self._plan_groups(server, request, tried, meter)
        if not server.backends:
            raise NothingReady
        decision = self._choose(server.backends, request, tried, meter)
        return Plan(decision.chosen, decision)

    def _plan_groups(self, server: ModelServer, request: RequestView, tried: Collection[str], meter: Meter) -> Plan:
        groups = (server.groups or {}).values()
        if not groups:
            raise NothingReady
        usable = [group for group in groups if any(b.key not in tried for b in group.prefill)]
        decode = self._choose([b for group in usable for b in group.decode], request, tried, meter)
        if request.path not in PAIR_PATHS or not request.is_one_sequence:
            return Plan(decode.chosen, decode)
        home = next(group for group in usable if decode.chosen.backend in group.decode)
        prefill = self._choose(home.prefill, request, tried, meter)
        return Plan(decode.chosen, decode, prefill.chosen)

    def _choose(
        self, backends: Iterable[Backend], request: RequestView, tried: Collection[str], meter: Meter
    ) -> Decision:
        load = self._loads.load
        candidates = [Candidate(b, load(b.key)) for b in backends if b.key not in tried]
        if not candidates:
            raise AllTried
        return self._profile.schedule(request, candidates, self._timer, meter)
