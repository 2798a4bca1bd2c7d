"""Conversations in a closed loop: each turn's prompt is all before it and something new, sent after a pause.

`W4` code generation (a long private context, about six turns, a tool runs in between) and `W5` reasoning (short prompts,
very long answers) have the shapes that llm-d published for its sticky routing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from hekla.simulation.request import Blocks, SimRequest
from hekla.simulation.workload.arrivals import log_normal, normal
from hekla.simulation.workload.interface import BlockNames, Workload
from hekla.simulation.workload.shared_prefix import one_after_another


@dataclass(frozen=True)
class Conversations:
    name: str
    common_tokens: int
    """Of the system prompt that all share."""
    own_tokens: tuple[float, float, int, int]
    """Mean, standard deviation, least, most: the context that a session starts with."""
    turns_mean: float
    turns_max: int
    turn_tokens: tuple[float, float]
    """Mean and standard deviation of what each turn adds."""
    output_tokens: tuple[float, float, int]
    """Mean, standard deviation, most."""
    pause_s: float
    """Mean, exponential."""
    block_tokens: int = 64


CODE_GENERATION = Conversations("W4", 0, (55_000, 25_000, 3_000, 100_000), 6.0, 20, (1500, 0), (800, 400, 4000), 15.0)
CHAT = Conversations("chat", 1000, (200, 150, 20, 2000), 20.0, 40, (200, 120), (200, 150, 1000), 10.0)


class _Sessions:
    """Each of `concurrency` users begins a new session when one has ended."""

    def __init__(self, shape: Conversations, dice: Random, until_s: float) -> None:
        self._shape, self._dice, self._until_s = shape, dice, until_s
        self._names = BlockNames()
        self._common = self._names.take(shape.common_tokens // shape.block_tokens)
        self._turns: dict[str, Iterator[SimRequest]] = {}
        self._requests = self._sessions = 0

    def begin(self, now_s: float) -> SimRequest:
        self._sessions += 1
        session = f"s{self._sessions}"
        self._turns[session] = self._play(session)
        first = next(self._turns[session])
        first.arrived_s = now_s
        return first

    def follow(self, request: SimRequest, finished_s: float) -> Sequence[SimRequest]:
        at = finished_s + self._dice.expovariate(1 / self._shape.pause_s)
        if at > self._until_s:
            return ()
        for following in self._turns[request.session]:
            following.arrived_s = at
            return [following]
        del self._turns[request.session]
        return [self.begin(at)]

    def _play(self, session: str) -> Iterator[SimRequest]:
        shape, dice, size = self._shape, self._dice, self._shape.block_tokens
        mean, deviation, low, high = shape.own_tokens
        tokens = shape.common_tokens + log_normal(dice, mean, deviation, low, high)
        known: Blocks = self._common
        turns = min(shape.turns_max, 2 + int(dice.expovariate(1 / max(0.1, shape.turns_mean - 2))))
        for _ in range(turns):
            tokens += normal(dice, *shape.turn_tokens)
            known += self._names.take(tokens // size - len(known))
            output = log_normal(dice, shape.output_tokens[0], shape.output_tokens[1], 1, shape.output_tokens[2])
            after = self._names.take((tokens + output - 1) // size - len(known))
            self._requests += 1
            yield SimRequest(self._requests, 0.0, tokens, output, known, after, session=session)
            known += after
            tokens += output


def conversations(shape: Conversations, seed: int, *, users: int, seconds: float, warm_s: float = 0.0) -> Workload:
    """`users` sessions at a time for `seconds`; they begin spread over one pause."""
    dice = Random(f"{shape.name}/{seed}")
    sessions = _Sessions(shape, dice, seconds)
    first = [sessions.begin(at) for at in sorted(dice.uniform(0, shape.pause_s) for _ in range(users))]
    return Workload(f"{shape.name} x{users}", shape.block_tokens, first, sessions.follow, warm_s, seconds)


def reasoning(seed: int, *, concurrency: int, rounds: int = 3, block_tokens: int = 64) -> Workload:
    """`W5`: 250 shared + 1,000 own tokens, answers of 8,000 on average and 32,000 at most, `rounds × concurrency` in all."""
    dice = Random(f"W5/{seed}")
    names = BlockNames()
    system = names.take(250 // block_tokens)
    prompts = []
    for _ in range(rounds * concurrency):
        blocks = system + names.take(1250 // block_tokens - len(system))
        output = log_normal(dice, 8000, 6000, 200, 32_000)
        prompts.append(SimRequest(0, 0.0, 1250, output, blocks, group=0))
    return one_after_another(f"W5 x{concurrency}", block_tokens, prompts, concurrency, start_rate=20.0)
