"""One engine's numbered stream of event batches put in order: gaps, replays, restarts. Pure.

Every replay asks for the last batch that was taken, too: if it comes back with its own time, the stream goes on; if
not, the engine was restarted or remembers too little, and everything starts anew from what it still remembers.

Not seen here: a restart of which every batch is lost until the very number that was expected. An engine that restarts is
not ready meanwhile, so the routing table tells of it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from hekla.routing.prefix.batch import Batch

FRUITLESS_REPLAYS_MAX = 3
"""Replays in a row that did not close a gap, after which it is given up."""


class Begin(NamedTuple):
    """What was known of the engine holds no more. Complete: from here on everything is told, from the engine's start."""

    is_complete: bool


class Deliver(NamedTuple):
    batch: Batch


class AskReplay(NamedTuple):
    """Ask the engine for all batches from this number on."""

    first: int


Instruction = Begin | Deliver | AskReplay


@dataclass
class StreamCounts:
    batches: int = 0
    gaps: int = 0
    replays: int = 0
    lost: int = 0
    """Starts anew because batches could not be had again."""
    restarts: int = 0
    """Starts anew because the engine did."""
    malformed: int = 0


class State(enum.Enum):
    LIVE = enum.auto()
    REPLAYING = enum.auto()


class EventStream:
    """Feed it what is heard; do what it answers, in order."""

    def __init__(self, *, can_replay: bool, held_max: int, counts: StreamCounts) -> None:
        self._can_replay, self._held_max, self._counts = can_replay, held_max, counts
        self.state = State.LIVE
        self._started = False
        self._expected = 0
        self._last_s = 0.0
        self._held: list[tuple[int, Batch]] = []
        self._anchor: int | None = None
        """The batch a replay must begin with to go on; None: it is to begin anywhere."""
        self._fruitless = 0

    def probe(self) -> list[Instruction]:
        """At the beginning and whenever the stream has been silent: were the last events missed?"""
        if self._can_replay and self.state is State.LIVE:
            return self._replay()
        return []

    def heard(self, sequence: int, batch: Batch) -> list[Instruction]:
        """A batch as it was published."""
        if self.state is State.REPLAYING:
            if len(self._held) >= self._held_max:
                return self._give_up()
            self._held.append((sequence, batch))
            return []
        return list(self._live(sequence, batch))

    def replayed(self, sequence: int, batch: Batch) -> list[Instruction]:
        """A batch of the replay that was asked for."""
        if self.state is not State.REPLAYING:
            return []
        if self._anchor is not None:
            if (sequence, batch.made_s) == (self._anchor, self._last_s):
                self._anchor = None
                return []
            self._counts.restarts += 1
            return self._from_scratch()
        if self._started and sequence == self._expected:
            return [self._take(sequence, batch)]
        if self._started and sequence < self._expected:
            return []
        if self._started:
            self._counts.lost += 1
        self._started = True
        return [Begin(sequence == 0), self._take(sequence, batch)]

    def replay_ended(self) -> list[Instruction]:
        if self.state is not State.REPLAYING:
            return []
        if self._anchor is not None:
            self._counts.restarts += 1
            return self._from_scratch()
        begun: list[Instruction] = [] if self._started else [Begin(True)]
        self._started = True
        return [*begun, *self._release()]

    def replay_failed(self) -> list[Instruction]:
        """No answer, or not in time."""
        if self.state is not State.REPLAYING:
            return []
        return self._give_up() if self._held else self._resume()

    def malformed(self) -> list[Instruction]:
        """A batch that can't be read is lost, and would be so again in a replay: go on with the next one."""
        self._counts.malformed += 1
        self._counts.lost += 1
        self._resume()
        self._held, self._started, self._expected, self._fruitless = [], False, 0, FRUITLESS_REPLAYS_MAX
        return [Begin(False)]

    def _live(self, sequence: int, batch: Batch) -> Iterator[Instruction]:
        if sequence < self._expected and self._started:
            if batch.made_s <= self._last_s:
                return  # a replay was quicker
            self._counts.restarts += 1
            if sequence and self._can_replay:
                yield from self._from_scratch()
                self._held.append((sequence, batch))
                return
            self._started = False
        elif sequence > self._expected and (self._started or self._can_replay):
            self._counts.gaps += self._started
            if self._can_replay and self._fruitless < FRUITLESS_REPLAYS_MAX:
                self._fruitless += 1
                yield from self._replay()
                self._held.append((sequence, batch))
                return
            self._counts.lost += self._started
            self._started = False
        if not self._started:
            self._started = True
            yield Begin(sequence == 0)
        yield self._take(sequence, batch)

    def _take(self, sequence: int, batch: Batch) -> Deliver:
        self._expected, self._last_s, self._fruitless = sequence + 1, batch.made_s, 0
        self._counts.batches += 1
        return Deliver(batch)

    def _replay(self) -> list[Instruction]:
        self.state = State.REPLAYING
        self._counts.replays += 1
        self._anchor = self._expected - 1 if self._started and self._expected else None
        return [AskReplay(self._anchor if self._anchor is not None else 0)]

    def _from_scratch(self) -> list[Instruction]:
        self._started, self._expected, self._anchor = False, 0, None
        return self._replay()

    def _resume(self) -> list[Instruction]:
        self.state, self._anchor = State.LIVE, None
        return []

    def _give_up(self) -> list[Instruction]:
        """Go on from what has been heard, or will be, as with an engine never heard before."""
        self._counts.lost += 1
        self._started, self._expected = bool(self._held), self._held[0][0] if self._held else 0
        return [Begin(False), *self._release()]

    def _release(self) -> list[Instruction]:
        """The replay is over: what was held back comes next."""
        self._resume()
        held, self._held = self._held, []
        answers: list[Instruction] = []
        for at, (sequence, batch) in enumerate(held):
            answers += self._live(sequence, batch)
            if self.state is State.REPLAYING:
                self._held += held[at + 1 :]
                break
        return answers

    def __repr__(self) -> str:
        return f"EventStream({self.state.name}, next {self._expected}, {len(self._held)} held)"
