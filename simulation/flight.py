"""One request in a simulated fleet, from its arrival to its end, over as many engines as it takes."""

from __future__ import annotations

from dataclasses import dataclass, field

from hekla.routing.scheduling.dispatch import Trip
from hekla.simulation.engine.sequence import Sequence
from hekla.simulation.records import Record
from hekla.simulation.request import SimRequest
from hekla.simulation.router import RouterReplica
from hekla.simulation.view import SimView


@dataclass(slots=True, eq=False)
class Flight:
    original: SimRequest
    request: SimRequest
    """What is asked of the next engine: after a failure the original and what was delivered of its answer."""
    record: Record
    router: RouterReplica
    view: SimView
    tried: set[str] = field(default_factory=set)
    trip: Trip | None = None
    prefill_trip: Trip | None = None
    sequence: Sequence | None = None
    delivered: int = 0
    """Tokens the client has from engines that were lost."""
    told: int = 0
    """Generated tokens that the router's load has been told of on this engine."""

    def lose_engine(self, outputs: int, now_s: float) -> None:
        """Its engine died after `outputs` tokens of this try: what is left is a prompt that goes on from there."""
        for trip in (self.trip, self.prefill_trip):
            if trip is not None:
                trip.end(now_s, usage=None, succeeded=False)
        self.trip = self.prefill_trip = self.sequence = None
        self.delivered, self.told = self.delivered + outputs, 0
        original, left = self.original, self.original.output_tokens - self.delivered
        if outputs:
            self.request = SimRequest(
                original.id, original.arrived_s, original.prompt_tokens + self.delivered, left, original.blocks,
                tenant=original.tenant, session=original.session, adapter=original.adapter, group=original.group,
            )  # fmt: skip
        self.view = self.router.view(self.request)
