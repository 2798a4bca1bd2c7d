"""What a simulated router knows of caches: the production indexes, fed with block names in place of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hekla.routing.prefix.approximate import ApproximateIndex
from hekla.routing.prefix.batch import Batch, Event, Removed, Stored
from hekla.routing.prefix.exact import ExactIndex
from hekla.routing.prefix.hashing import MASK, BlockHasher
from hekla.routing.prefix.settings import ApproximateSettings, ExactSettings
from hekla.routing.scheduling.interface import RequestView
from hekla.simulation.view import SimView

SEED = "simulation"


class NamedIndex(ExactIndex):
    """The exact index, whose blocks have names already."""

    def __init__(self, settings: ExactSettings | None = None) -> None:
        self._root_hash = 0
        hasher = BlockHasher(SEED)
        super().__init__(settings or ExactSettings(), hasher)
        self._multiplier, self._root_hash = hasher.multiplier, hasher.root("adapter", "")

    def blocks(self, request: RequestView, block_size: int) -> list[int]:
        assert isinstance(request, SimView) and request.block_tokens == block_size
        return list(request.blocks)

    def take_in(self, engine: str, changes: Iterable[int], block_tokens: int) -> None:
        """What an engine's cache gained and lost (`~name`), in order."""
        events: list[Event] = []
        stored: list[int] = []
        removed: list[int] = []
        for change in changes:
            if change >= 0:
                if removed:
                    events.append(Removed(removed))
                    removed = []
                stored.append(change)
            else:
                if stored:
                    events.append(self._stored(stored, block_tokens))
                    stored = []
                removed.append(~change)
        if stored:
            events.append(self._stored(stored, block_tokens))
        if removed:
            events.append(Removed(removed))
        self.apply(engine, Batch(0.0, events))

    def _stored(self, names: Sequence[int], block_tokens: int) -> Stored:
        """Digests chosen so that the index's own chained hashes are the names."""
        before, digests = self._root_hash, []
        for name in names:
            digests.append((name - before * self._multiplier) & MASK)
            before = name
        return Stored(names, None, digests, block_tokens)


def exact_index(engines: Iterable[str], *, in_flight_credit: bool = True) -> NamedIndex:
    """Knows of these engines from their start. Without `in_flight_credit` only what events have told counts."""
    settings = ExactSettings() if in_flight_credit else ExactSettings(credit_tokens=1 << 40)
    index = NamedIndex(settings)
    for engine in engines:
        index.begin(engine, is_complete=True)
    return index


def approximate_index(capacities: dict[str, int]) -> ApproximateIndex:
    """By text; `capacities` are the engines' cache sizes in tokens."""
    index = ApproximateIndex(ApproximateSettings(), BlockHasher(SEED))
    for engine, tokens in capacities.items():
        index.set_capacity(engine, tokens)
    return index
