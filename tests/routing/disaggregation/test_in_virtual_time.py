"""Whole runs on simulated engines, one of which only prefills: what deciding request by request is worth."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hekla.simulation.baselines.catalog import policy_named
from hekla.simulation.engine.spec import engine_spec
from hekla.simulation.fleet import Fleet, FleetSettings
from hekla.simulation.workload import shared_prefix

ENGINE = engine_spec("Qwen2.5-7B", "L40S")


def first_token_s(rate: float, tokens_max: int | None, *, prompt_tokens: int = 3000) -> float:
    """Mean time to first token of prompts that share half with others, on one prefill and three decode engines."""
    shape = shared_prefix.PrefixGroups("pd", 12, 10, prompt_tokens // 2, prompt_tokens // 2, 64)
    workload = shared_prefix.open_loop(shape, 1, rate=rate, seconds=20)
    fleet = Fleet(FleetSettings([ENGINE] * 4, prefill=1), policy_named("hekla"), workload, seed=1)
    for router in fleet.routers:
        router.server = replace(router.server, local_prefill_tokens_max=tokens_max)
    found = fleet.run()
    assert found.summary.errors == 0
    assert found.summary.served == len(workload.requests)
    for router in fleet.routers:
        router.loads.check()
        assert not router.loads.own(), "a trip was not ended"
    return sum(row.first_s - row.arrived_s for row in found.records) / len(found.records)


@pytest.mark.parametrize("rate", [1.0, 6.0])
def test_deciding_by_seconds_is_no_worse_than_always_handing_over(rate: float) -> None:
    assert first_token_s(rate, None) <= first_token_s(rate, 0)


def test_a_prefill_side_that_is_overloaded_does_not_hold_everybody_up() -> None:
    assert first_token_s(12.0, None) < first_token_s(12.0, 0) / 3


def test_prompts_of_a_few_tokens_are_not_handed_over() -> None:
    assert first_token_s(3.0, None, prompt_tokens=32) == first_token_s(3.0, 10**6, prompt_tokens=32)
