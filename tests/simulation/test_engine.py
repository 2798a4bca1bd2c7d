"""What the comparison with the token-exact engine does not cover: handing KV over, tiers, adapters, and the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hekla.deployments.simengine.scheduler import Limits
from hekla.simulation.engine.core import Engine
from hekla.simulation.engine.sequence import Remote
from hekla.simulation.engine.spec import EngineSpec, engine_spec
from hekla.simulation.loop import EventLoop
from hekla.simulation.request import SimRequest


def request(number: int, prompt: int = 16, output: int = 4, **more: object) -> SimRequest:
    blocks = tuple(1000 * number + i for i in range(prompt // 4))
    return SimRequest(number, 0.0, prompt, output, more.pop("blocks", blocks), **more)  # type: ignore[arg-type]


def test_a_prompt_seen_before_costs_only_what_is_new(loop: EventLoop, listener: Any, small: EngineSpec) -> None:
    engine = Engine("e", small, loop, listener)
    first = engine.submit(request(1, 33))
    loop.run()
    again = engine.submit(request(2, 33, blocks=request(1, 33).blocks))
    began = loop.monotonic()
    loop.run()
    assert first.cached == 0 and again.cached == 32
    assert again.first_s - began == pytest.approx(0.011)


def test_a_whole_prompt_that_is_cached_still_computes_its_last_block(
    loop: EventLoop, listener: Any, small: EngineSpec
) -> None:
    engine = Engine("e", small, loop, listener)
    for _ in range(2):
        last = engine.submit(request(1, 16))
        loop.run()
    assert last.cached == 12


def test_the_next_turn_finds_the_answer_of_the_one_before(loop: EventLoop, listener: Any, small: EngineSpec) -> None:
    engine = Engine("e", small, loop, listener)
    engine.submit(SimRequest(1, 0.0, 16, 9, (1, 2, 3, 4), after=(5, 6)))
    loop.run()
    following = engine.submit(SimRequest(2, 0.0, 30, 1, (1, 2, 3, 4, 5, 6, 7)))
    loop.run()
    assert following.cached == 24


def test_an_arrival_waits_for_the_end_of_the_step_in_which_it_falls(
    loop: EventLoop, listener: Any, small: EngineSpec
) -> None:
    engine = Engine("e", small, loop, listener)
    engine.submit(request(1, 10, 50))
    loop.run(until_s=0.0951)
    late = engine.submit(request(2, 10, 1))
    loop.run()
    # the first token at 20 ms, then a token every 10 ms: the step that runs ends at 100 ms
    assert late.first_s == pytest.approx(0.1 + 0.02)


def test_kv_is_pulled_from_the_engine_that_computed_it_and_freed_there(
    loop: EventLoop, listener: Any, small: EngineSpec
) -> None:
    prefill, decode = (Engine(key, small, loop, listener) for key in ("p", "d"))
    asked = request(1, 32, 5)
    computed = prefill.submit(asked, output_tokens=1, hold=True)
    loop.run(until_s=1.0)
    assert prefill.cache.used == 8
    pulled = decode.submit(asked, remote=Remote(computed, 32, prefill.collect))
    loop.run(until_s=2.0)
    assert prefill.cache.used == 0
    assert (pulled.cached, pulled.pulled) == (31, 31)
    assert pulled.first_s == pytest.approx(1.0 + 0.05 + 31 * 1000 / 25e9 + 0.011)
    prefill.check()
    decode.check()


def test_kv_that_nobody_pulled_in_time_is_freed_and_computed_anew(
    loop: EventLoop, listener: Any, small: EngineSpec
) -> None:
    prefill, decode = (Engine(key, small, loop, listener) for key in ("p", "d"))
    asked = request(1, 32, 5)
    computed = prefill.submit(asked, output_tokens=1, hold=True)
    loop.run(until_s=20.0)
    assert prefill.cache.used == 0
    late = decode.submit(asked, remote=Remote(computed, 32, prefill.collect))
    loop.run()
    assert late.ended and late.pulled == 0 and late.outputs == 5


def test_evicted_blocks_come_back_from_host_memory_instead_of_being_computed(
    loop: EventLoop, listener: Any, small: EngineSpec
) -> None:
    engine = Engine("e", replace(small, spill_blocks=64), loop, listener)
    for number in range(1, 8):
        engine.submit(request(number, 60, 1))
        loop.run()
    before = loop.monotonic()
    again = engine.submit(request(1, 60, 1))
    loop.run()
    assert again.cached == 56 and again.pulled > 0
    assert again.first_s - before < 0.06, "20 ms to fetch, 14 to compute; all of it would take 70"
    engine.check()


def test_only_as_many_adapters_run_together_as_there_are_slots(
    loop: EventLoop, listener: Any, small: EngineSpec
) -> None:
    engine = Engine("e", small, loop, listener)
    for number, adapter in enumerate(("a", "b", "c", "a")):
        engine.submit(request(number, 8, 20, adapter=adapter))
    loop.run()
    assert listener.firsts == [0, 1, 3, 2], "c waits, and does not hold up who has a place"
    assert (engine.adapters.loads == 3 and engine.adapters.loaded == {"a", "c"}) or engine.adapters.loaded == {"b", "c"}


def test_a_request_that_can_never_fit_is_refused_at_once(loop: EventLoop, listener: Any, small: EngineSpec) -> None:
    engine = Engine("e", replace(small, limits=Limits(8, 64, 256)), loop, listener)
    with pytest.raises(ValueError, match="memory for 256"):
        engine.submit(request(1, 250, 10))
    with pytest.raises(ValueError, match="max_loras 0"):
        engine.submit(request(1, 8, 1, adapter="a"))


@pytest.mark.parametrize("at_s", [0.0, 0.005, 0.031, 0.0555])
def test_an_aborted_request_leaves_nothing_behind(
    loop: EventLoop, listener: Any, small: EngineSpec, at_s: float
) -> None:
    engine = Engine("e", small, loop, listener)
    kept, dropped = engine.submit(request(1, 20, 30)), engine.submit(request(2, 30, 30))
    loop.at(at_s, lambda: engine.abort(dropped))
    loop.run()
    assert kept.ended and listener.ends == [1]
    engine.check()


def test_an_engine_that_dies_gives_back_what_was_on_it_with_what_it_had_generated(
    loop: EventLoop, listener: Any, small: EngineSpec
) -> None:
    engine = Engine("e", replace(small, limits=Limits(1, 64, 256)), loop, listener)
    engine.submit(request(1, 10, 30)), engine.submit(request(2, 10, 30))
    loop.run(until_s=0.075)
    left = engine.stop()
    loop.run()
    assert [(item.request.id, item.outputs) for item in left] == [(1, 6), (2, 0)]
    assert listener.ends == []


def test_the_latest_is_preempted_and_all_still_end(loop: EventLoop, listener: Any, small: EngineSpec) -> None:
    engine = Engine("e", replace(small, blocks=16), loop, listener)
    sequences = [engine.submit(request(number, 16, 30)) for number in range(3)]
    loop.run()
    assert listener.ends and {item.outputs for item in sequences} == {30}
    assert sequences[0].preemptions == 0 and engine.preemptions > 0
    engine.check()


def test_the_specification_of_a_real_accelerator_has_its_published_memory() -> None:
    assert engine_spec("Qwen3-32B", "H100", 2).capacity_tokens == pytest.approx(307_328, rel=0.01)
    assert engine_spec("Llama-3-8B", "L4").limits.max_num_batched_tokens == 2048
