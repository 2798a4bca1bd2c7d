"""The fast engine does what the token-exact one does: same order, same times, same cache hits."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import partial

import pytest

from hekla.deployments.simengine.core import CoreConfig, EngineCore
from hekla.deployments.simengine.scheduler import Limits
from hekla.deployments.simengine.sequence import EngineRequest
from hekla.deployments.simengine.steps import Linear, StepModel
from hekla.simulation.engine.core import Engine
from hekla.simulation.engine.sequence import Sequence
from hekla.simulation.engine.spec import EngineSpec
from hekla.simulation.loop import EventLoop
from hekla.simulation.request import SimRequest

BLOCK = 4
Outcome = dict[int, tuple[float, float, int]]
"""Request: time of first token, of the last, and cached prompt tokens."""


@dataclass
class Case:
    blocks: int
    limits: Limits
    requests: list[tuple[float, list[int], int]]
    """Arrival, prompt, output tokens."""
    model: StepModel = field(default_factory=lambda: Linear(5.0, 0.1, 0.2, 0.003))


class Recorder:
    def __init__(self) -> None:
        self.outcome: Outcome = {}
        self.order: list[int] = []

    def first_token(self, engine: Engine, sequence: Sequence) -> None:
        self.order.append(sequence.request.id)

    def finished(self, engine: Engine, sequence: Sequence) -> None:
        self.outcome[sequence.request.id] = (sequence.first_s, sequence.finished_s, sequence.cached)

    def cache_changed(self, engine: Engine, changes: object) -> None:
        engine.check()

    def progressed(self, engine: Engine) -> None: ...


def run_exact(case: Case) -> Outcome:
    core = EngineCore(CoreConfig("m", case.blocks, BLOCK, case.limits), case.model)
    left = list(enumerate(case.requests))
    now, outcome, firsts = 0.0, Outcome(), dict[str, float]()
    while left or core.unfinished:
        while left and left[0][1][0] <= now:
            number, (_, prompt, output) = left.pop(0)
            core.add(EngineRequest(str(number), tuple(prompt), output, ignore_eos=True), now)
        result = core.step(now)
        now += result.duration_s
        for item in result.outputs:
            firsts.setdefault(item.request_id, now)
            if item.finish:
                outcome[int(item.request_id)] = (firsts[item.request_id], now, item.cached_tokens)
        if not result.duration_s and left:
            now = left[0][1][0]
    return outcome


def names_of(prompt: list[int]) -> tuple[int, ...]:
    full = len(prompt) // BLOCK
    return tuple(hash(tuple(prompt[: (i + 1) * BLOCK])) & (1 << 61) - 1 for i in range(full))


def run_fast(case: Case) -> Outcome:
    loop, recorder = EventLoop(), Recorder()
    spec = EngineSpec("test", case.model, case.blocks, BLOCK, case.limits)
    engine = Engine("e", spec, loop, recorder)
    for number, (arrival, prompt, output) in enumerate(case.requests):
        request = SimRequest(number, arrival, len(prompt), output, names_of(prompt))
        loop.at(arrival, partial(engine.submit, request))
    loop.run()
    engine.check()
    return recorder.outcome


def make_case(seed: int, *, blocks: int, max_num_seqs: int, budget: int, gap_s: float) -> Case:
    dice = random.Random(seed)
    prefixes = [[dice.randrange(1000, 60000) for _ in range(dice.randrange(4, 24))] for _ in range(4)]
    requests, now = [], 0.0
    for _ in range(40):
        now += dice.expovariate(1 / gap_s)
        prompt = dice.choice(prefixes) + [dice.randrange(1000, 60000) for _ in range(dice.randrange(1, 20))]
        requests.append((now, prompt, dice.randrange(1, 30)))
    limits = Limits(max_num_seqs, budget, max_model_len=blocks * BLOCK)
    return Case(blocks, limits, requests)


def assert_alike(case: Case, within_s: float = 1e-9) -> None:
    exact, fast = run_exact(case), run_fast(case)
    assert exact.keys() == fast.keys()
    for number in exact:
        assert fast[number] == pytest.approx(exact[number], abs=within_s), f"request {number}"


@pytest.mark.parametrize("seed", range(20))
def test_with_ample_memory_every_time_and_every_hit_is_the_same(seed: int) -> None:
    assert_alike(make_case(seed, blocks=2000, max_num_seqs=8, budget=64, gap_s=0.03))


@pytest.mark.parametrize("seed", range(20))
def test_when_prefixes_are_evicted_every_time_and_every_hit_is_the_same(seed: int) -> None:
    assert_alike(make_case(seed, blocks=60, max_num_seqs=2, budget=16, gap_s=0.2))


@pytest.mark.parametrize("seed", range(20))
def test_a_chunked_prompt_takes_the_same_steps(seed: int) -> None:
    assert_alike(make_case(seed, blocks=400, max_num_seqs=4, budget=7, gap_s=0.05))


@pytest.mark.parametrize("seed", range(30))
def test_when_memory_is_short_and_sequences_are_preempted_all_ends_as_it_should(seed: int) -> None:
    case = make_case(seed, blocks=30, max_num_seqs=16, budget=64, gap_s=0.01)
    exact, fast = run_exact(case), run_fast(case)
    assert exact.keys() == fast.keys()
    total, other = (sum(row[1] for row in outcome.values()) for outcome in (exact, fast))
    assert other == pytest.approx(total, rel=0.03)
