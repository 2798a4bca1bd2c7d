"""Engines behind router replicas, one policy, one workload, one seed: a run.

What routers hear is as late as `staleness_s` says: their peers' counts, the engines' cache events and reports, and that
an engine is gone. What they do themselves they know at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from random import Random

from hekla.routing.backend import Backend, ModelServer, PrefillGroup
from hekla.routing.disaggregation import AllTried, NothingReady, Plan
from hekla.routing.load import Counts
from hekla.routing.scheduling.interface import Busy
from hekla.routing.usage import Usage
from hekla.simulation.engine.core import Engine
from hekla.simulation.engine.pace import Pace
from hekla.simulation.engine.sequence import Remote
from hekla.simulation.engine.sequence import Sequence as EngineSequence
from hekla.simulation.engine.spec import EngineSpec, with_unbounded_cache
from hekla.simulation.flight import Flight
from hekla.simulation.gate import Admission, Gate
from hekla.simulation.loop import EventLoop
from hekla.simulation.policy import Policy
from hekla.simulation.records import Objective, Record, Summary, summarise
from hekla.simulation.request import SimRequest
from hekla.simulation.router import RouterReplica
from hekla.simulation.workload.interface import Workload

REPORT_S = 1.0
"""How often engines' own queue lengths are read."""
TRIES_MAX = 5


@dataclass(frozen=True)
class FleetSettings:
    engines: Sequence[EngineSpec]
    replicas: int = 1
    """Of the router."""
    staleness_s: float = 0.0
    prefill: int = 0
    """The first so many engines only prefill, the others decode; 0: every engine does both."""
    admission: Admission | None = None
    """Each replica has a queue of its own."""
    kills: Sequence[tuple[float, int]] = field(default_factory=tuple)
    """(time, engine's position): it dies then, and does not come back."""
    until_s: float = float("inf")
    """The run ends then, whatever is left."""


@dataclass(frozen=True)
class Run:
    records: list[Record]
    summary: Summary
    seconds: float
    """Virtual."""
    events: int


class Fleet:
    def __init__(self, settings: FleetSettings, policy: Policy, workload: Workload, *, seed: int) -> None:
        self.settings, self.policy, self.workload = settings, policy, workload
        self.loop = EventLoop()
        self._dice = Random(f"fleet/{seed}")
        self.engines = self._make_engines(settings, policy)
        server = self._server()
        capacities = {key: engine.spec.capacity_tokens for key, engine in self.engines.items()}
        self.routers = [
            RouterReplica(f"r{i}", policy, server, capacities, seed=str(seed), block_tokens=workload.block_tokens,
                          on_change=self._share)
            for i in range(settings.replicas)
        ]  # fmt: skip
        self._gates = self._make_gates()
        self._flights: dict[EngineSequence, Flight] = {}
        self._records: list[Record] = []
        self._sequence = count(1)
        self._heard = {(a.name, b.name): 0 for a in self.routers for b in self.routers}
        self._unfinished = 0

    def _make_engines(self, settings: FleetSettings, policy: Policy) -> dict[str, Engine]:
        paces: dict[str, Pace] = {}
        found = {}
        for position, given in enumerate(settings.engines):
            if given.block_tokens != self.workload.block_tokens:
                raise ValueError(
                    f"engine {position} has blocks of {given.block_tokens} tokens, the workload of "
                    f"{self.workload.block_tokens}"
                )
            spec = with_unbounded_cache(given) if policy.unbounded_cache else given
            pace = paces.setdefault(f"{spec.kind}/{spec.model_name}", Pace(spec.model))
            found[f"e{position}"] = Engine(f"e{position}", spec, self.loop, self, pace)
        return found

    def _make_gates(self) -> dict[str, Gate]:
        admission = self.settings.admission
        if admission is None:
            return {}
        return {
            router.name: Gate(admission, self.loop, len(self.engines), start=self._start, refuse=self._refuse)
            for router in self.routers
        }

    def _server(self) -> ModelServer:
        backends = [self._backend(engine) for engine in self.engines.values() if not engine.is_stopped]
        pool = ModelServer(("sim", "pool"), "", "vLLM", tuple(backends))
        if not self.settings.prefill:
            return pool
        prefillers = {f"e{i}" for i in range(self.settings.prefill)}
        prefill = tuple(backend for backend in backends if backend.key in prefillers)
        decode = tuple(backend for backend in backends if backend.key not in prefillers)
        groups = {"g": PrefillGroup(prefill, decode)} if prefill and decode else {}
        return replace(pool, connector="nixl", groups=groups)

    def _backend(self, engine: Engine) -> Backend:
        spec, labels = engine.spec, {"hekla.io/accelerator": engine.spec.accelerator}
        known = self.policy.knows_types and spec.model_name
        return Backend(
            engine.key, f"sim://{engine.key}", models=(spec.model_name,) if known else (),
            labels=labels if known else {}, max_model_len=spec.limits.max_model_len,
        )  # fmt: skip

    # -- a run ---------------------------------------------------------------------------------------------------

    def run(self, objective: Objective | None = None) -> Run:
        """To the end of all requests. The summary leaves out what arrived before or after the measured span."""
        for request in self.workload.requests:
            self._expect(request)
        for at_s, position in self.settings.kills:
            self.loop.at(at_s, partial(self._kill, f"e{position}"))
        self.loop.after(REPORT_S, self._report)
        self.loop.run(self.settings.until_s)
        workload = self.workload
        counted = [row for row in self._records if workload.warm_s <= row.arrived_s <= workload.until_s]
        return Run(self._records, summarise(counted, objective or Objective()), self.loop.monotonic(), self.loop.events)

    def _expect(self, request: SimRequest) -> None:
        self._unfinished += 1
        self.loop.at(request.arrived_s, lambda: self._arrive(request))

    def _arrive(self, request: SimRequest) -> None:
        record = Record(request.id, request.tenant, request.arrived_s, request.prompt_tokens, request.output_tokens)
        self._records.append(record)
        router = self._dice.choice(self.routers) if len(self.routers) > 1 else self.routers[0]
        flight = Flight(request, request, record, router, router.view(request))
        gate = self._gates.get(router.name)
        if gate is not None:
            gate.offer(flight)
        else:
            self._dispatch(flight)

    def _dispatch(self, flight: Flight) -> None:
        flight.view.now_s = self.loop.monotonic()
        try:
            plan = flight.router.plan(flight.view, flight.tried)
        except (Busy, AllTried, NothingReady) as refusal:
            self._close(flight, type(refusal).__name__)
            return
        self._start(flight, plan)

    def _start(self, flight: Flight, plan: Plan) -> None:
        record, router, now = flight.record, flight.router, self.loop.monotonic()
        flight.view.now_s = now
        engine = self.engines[plan.server.backend.key]
        first = self.engines[plan.prefill.backend.key] if plan.prefill else engine
        record.tries += 1
        dead = next((item for item in (first, engine) if item.is_stopped), None)
        if dead is not None:
            self._refused_by(flight, dead)
            return
        record.engine = engine.key
        if record.sent_s < 0:
            record.sent_s = now
        if plan.prefill is None:
            flight.trip = router.begin(plan.server, flight.view)
            self._predict(flight, flight.trip.forecast.matched_tokens, flight.trip.forecast.ttft_s)
            self._submit(flight, engine)
        else:
            flight.prefill_trip = router.begin(plan.prefill, flight.view, prefill_only=True)
            flight.trip = router.begin(plan.server, flight.view, decode_only=True)
            forecast = flight.prefill_trip.forecast
            self._predict(flight, forecast.matched_tokens, forecast.ttft_s)
            flight.sequence = first.submit(flight.request, output_tokens=1, hold=True)
            self._flights[flight.sequence] = flight

    def _predict(self, flight: Flight, matched_tokens: float, ttft_s: float) -> None:
        record = flight.record
        if record.tries == 1:
            record.predicted_tokens = matched_tokens
            record.predicted_ttft_s = record.sent_s - record.arrived_s + ttft_s

    def _submit(self, flight: Flight, engine: Engine, remote: Remote | None = None) -> None:
        flight.sequence = engine.submit(flight.request, remote=remote)
        self._flights[flight.sequence] = flight

    def _refused_by(self, flight: Flight, engine: Engine) -> None:
        """Nobody listens there any more: another engine, as the proxy does."""
        flight.tried.add(engine.key)
        for router in self.routers:
            router.loads.load(engine.key).suspect_until_s = self.loop.monotonic() + 5.0
        self._retry(flight)

    def _retry(self, flight: Flight) -> None:
        if flight.record.tries >= TRIES_MAX:
            self._close(flight, "gave up")
        else:
            self._dispatch(flight)

    def _refuse(self, flight: Flight) -> None:
        self._close(flight, "refused")

    def _close(self, flight: Flight, refused: str = "") -> None:
        """It is over: who waits for its end may go on."""
        flight.record.refused = refused
        self._unfinished -= 1
        for request in self.workload.follow(flight.original, self.loop.monotonic()):
            self._expect(request)

    # -- what engines do -----------------------------------------------------------------------------------------

    def first_token(self, engine: Engine, sequence: EngineSequence) -> None:
        flight, now = self._flights[sequence], self.loop.monotonic()
        trip = flight.prefill_trip if sequence.hold else flight.trip
        assert trip is not None
        trip.first_token(now)
        flight.router.tell()
        if not sequence.hold and flight.record.first_s < 0:
            flight.record.first_s = now
        if flight.router.name in self._gates:
            self._gates[flight.router.name].nudge()

    def finished(self, engine: Engine, sequence: EngineSequence) -> None:
        flight, now = self._flights.pop(sequence), self.loop.monotonic()
        record, trip = flight.record, flight.prefill_trip if sequence.hold else flight.trip
        assert trip is not None
        request, cached = sequence.request, max(0, sequence.cached - sequence.pulled)
        trip.end(now, usage=Usage(request.prompt_tokens, sequence.outputs, cached, True), succeeded=True)
        flight.router.tell()
        if record.tries == 1 and not (flight.prefill_trip and not sequence.hold):
            record.cached_tokens = cached
        record.preemptions += sequence.preemptions
        if sequence.hold:
            decode = self.engines[record.engine]
            if decode.is_stopped:
                self._lost(flight, 0)
            else:
                self._submit(flight, decode, Remote(sequence, request.prompt_tokens, engine.collect))
            return
        record.finished_s = now
        if flight.router.name in self._gates:
            self._gates[flight.router.name].settle(flight)
        self._close(flight)

    def cache_changed(self, engine: Engine, changes: Sequence[int]) -> None:
        if self.policy.knowledge == "exact":
            self._later(lambda router: router.hear_cache(engine.key, changes))

    def progressed(self, engine: Engine) -> None:
        """Routers see every token pass; here they are told in steps."""
        steps = engine.batch.steps
        for sequence in engine.batch.running:
            flight = self._flights.get(sequence)
            if flight is not None and flight.trip is not None and sequence.decode_from >= 0:
                made = sequence.outputs + steps - sequence.decode_from
                flight.trip.progress(made - flight.told)
                flight.told = made

    # -- what routers hear ---------------------------------------------------------------------------------------

    def _later(self, tell: Callable[[RouterReplica], None]) -> None:
        """Every router hears it, as late as settings say."""

        def tell_all() -> None:
            for router in self.routers:
                tell(router)

        if self.settings.staleness_s > 0:
            self.loop.after(self.settings.staleness_s, tell_all)
        else:
            tell_all()

    def _share(self, router: RouterReplica, engine: str, counts: Counts) -> None:
        if len(self.routers) == 1:
            return
        number = next(self._sequence)

        def tell(peer: RouterReplica) -> None:
            if peer is not router:
                peer.hear_peer(router.name, number, engine, counts, self.loop.monotonic())

        self._later(tell)

    def _report(self) -> None:
        """Engines' own numbers, and (of approximate indexes) who was sent where."""
        said = [(engine.key, *engine.load, engine.usage) for engine in self.engines.values() if not engine.is_stopped]

        def tell(router: RouterReplica) -> None:
            for key, running, waiting, usage in said:
                router.hear_report(key, running, waiting, usage)

        self._later(tell)
        if self.policy.knowledge == "approximate" and len(self.routers) > 1:
            self._later(self._exchange_routes)
        if self._unfinished:
            self.loop.after(REPORT_S, self._report)

    def _exchange_routes(self, router: RouterReplica) -> None:
        for peer in self.routers:
            if peer is not router:
                pair = (router.name, peer.name)
                self._heard[pair] = router.hear_routes(peer, self._heard[pair])

    def _kill(self, key: str) -> None:
        """The engine dies. Its requests fail over at once; that it is gone is known later."""
        engine = self.engines[key]
        left = engine.stop()
        server = self._server()
        self._later(lambda router: router.lose(key, server))
        for sequence in left:
            flight = self._flights.pop(sequence)
            flight.tried.add(key)
            self._lost(flight, 0 if sequence.hold else sequence.outputs)

    def _lost(self, flight: Flight, outputs: int) -> None:
        flight.lose_engine(min(outputs, flight.request.output_tokens - 1), self.loop.monotonic())
        flight.router.tell()
        self._retry(flight)
