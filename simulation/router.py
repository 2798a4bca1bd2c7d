"""One router replica: the production dispatcher, its load book and its prefix index, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random

from hekla.routing.backend import Backend, ModelServer
from hekla.routing.disaggregation import Plan, Planner
from hekla.routing.load import Counts, LoadBook
from hekla.routing.prefix.approximate import ApproximateIndex
from hekla.routing.scheduling.dispatch import Dispatcher, Trip
from hekla.routing.scheduling.forecast import NOT_TOLD, Forecaster
from hekla.routing.scheduling.interface import Candidate, PrefixKnowledge
from hekla.routing.scheduling.knowledge import NoKnowledge
from hekla.routing.scheduling.pipeline import Profile
from hekla.routing.scheduling.priors import kind_of, shipped_prior
from hekla.routing.scheduling.rates import RateBook
from hekla.simulation.knowledge import NamedIndex, approximate_index, exact_index
from hekla.simulation.policy import Policy, PolicyParts
from hekla.simulation.request import SimRequest
from hekla.simulation.view import SimView

OnChange = Callable[["RouterReplica", str, Counts], None]


def _no_meter(plugin: str, stage: str, seconds: float) -> None:
    """Decisions take no virtual time."""


class RouterReplica:
    """`server` and `capacities` (KV tokens by engine key) are its table; `on_change` is told of its own counts."""

    def __init__(
        self, name: str, policy: Policy, server: ModelServer, capacities: Mapping[str, int], *,
        seed: str, block_tokens: int, on_change: OnChange,
    ) -> None:  # fmt: skip
        self.name, self.policy, self.server = name, policy, server
        self.loads = LoadBook()
        self.loads.forget(set(capacities))
        self._dice, self._block_tokens, self._on_change = Random(f"{seed}/{name}"), block_tokens, on_change
        self.knowledge = self._make_knowledge(policy, dict(capacities))
        self.rates = RateBook(shipped_prior, kind_of)
        forecaster = Forecaster(self.knowledge, self.rates, headroom=policy.headroom, cached=_cached(self.knowledge))
        parts = PolicyParts(forecaster, lambda group: group % max(1, len(server.backends)))
        profile = Profile(tuple(policy.filters(parts)), tuple(policy.scorers(parts)), forecaster)
        self.dispatcher = Dispatcher(Planner(profile, self.loads, lambda: 0.0), self.loads, forecaster)
        for backend in every_backend(server):
            self.rates.learn_capacity(backend, capacities[backend.key])

    @staticmethod
    def _make_knowledge(policy: Policy, capacities: dict[str, int]) -> PrefixKnowledge:
        if policy.knowledge == "exact":
            return exact_index(capacities, in_flight_credit=policy.in_flight_credit)
        return approximate_index(capacities) if policy.knowledge == "approximate" else NoKnowledge()

    def view(self, request: SimRequest) -> SimView:
        view = SimView(request, self._block_tokens, self._dice.random, tokenised=self.policy.knowledge == "exact")
        if self.policy.knows_output:
            view.output_tokens_max = request.output_tokens
        return view

    def plan(self, view: SimView, tried: Collection[str] = ()) -> Plan:
        """At `view.now_s`. Raises what `Dispatcher.plan` does."""
        return self.dispatcher.plan(self.server, view, tried, _no_meter)

    def begin(
        self, candidate: Candidate, view: SimView, *, prefill_only: bool = False, decode_only: bool = False
    ) -> Trip:
        trip = self.dispatcher.begin(
            candidate, view, now_s=view.now_s, prefill_only=prefill_only, decode_only=decode_only
        )
        self.tell()
        return trip

    def tell(self) -> None:
        """Own counts have changed: peers are to know."""
        changed, self.loads.changed = self.loads.changed, set()
        for engine in changed:
            self._on_change(self, engine, self.loads.load(engine).own)

    # -- what it hears -------------------------------------------------------------------------------------------

    def hear_peer(self, peer: str, sequence: int, engine: str, counts: Counts, now_s: float) -> None:
        self.loads.apply_peer(peer, sequence, {engine: counts}, now_s=now_s)

    def hear_cache(self, engine: str, changes: Sequence[int]) -> None:
        if isinstance(self.knowledge, NamedIndex):
            self.knowledge.take_in(engine, changes, self._block_tokens)

    def hear_routes(self, peer: RouterReplica, since: int) -> int:
        """Take in what a peer sent where (the approximate index); the last record's number."""
        own, other = self.knowledge, peer.knowledge
        if not isinstance(own, ApproximateIndex) or not isinstance(other, ApproximateIndex):
            return since
        records = other.export(since)
        own.merge(records, self.loads.engines)
        return records[-1].sequence if records else since

    def hear_report(self, engine: str, running: int, waiting: int, kv_usage: float) -> None:
        self.loads.report(engine, running, waiting)
        self.loads.report_memory(engine, kv_usage, None)

    def lose(self, engine: str, server: ModelServer) -> None:
        """The engine is gone from the table."""
        self.server = server
        self.knowledge.forget(engine)
        self.loads.forget({backend.key for backend in every_backend(server)})


def _cached(knowledge: PrefixKnowledge) -> Mapping[str, int]:
    return knowledge.cached if isinstance(knowledge, NamedIndex) else NOT_TOLD


def every_backend(server: ModelServer) -> list[Backend]:
    """Those of all roles."""
    found = {backend.key: backend for backend in server.backends}
    for group in (server.groups or {}).values():
        found |= {backend.key: backend for backend in (*group.prefill, *group.decode)}
    return list(found.values())
