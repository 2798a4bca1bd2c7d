from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hekla.deployments.simengine.blocks import BlockPool, Identity
from hekla.deployments.simengine.core import EngineCore
from hekla.deployments.simengine.events import AllBlocksCleared, BlockRemoved, BlockStored
from hekla.deployments.simengine.sequence import EngineRequest
from hekla.deployments.simengine.steps import Linear

Make = Callable[..., Any]
PROMPT = list(range(1000, 1100))


def test_a_prompt_longer_than_the_budget_is_computed_in_chunks(bench: Make) -> None:
    engine = bench(max_num_batched_tokens=40, linear=Linear(1.0, 0.1, 0.5))
    engine.add("r", PROMPT, 2)
    engine.run()
    assert engine.durations[:4] == pytest.approx([0.005, 0.005, 0.003, 0.0015])
    assert engine.last("r").finish == "length"
    assert engine.last("r").stats.first_token_at == pytest.approx(0.013)


def test_decodes_go_before_the_prompt_chunks_of_newcomers(bench: Make) -> None:
    engine = bench(max_num_batched_tokens=16)
    engine.add("old", PROMPT[:8], 20)
    engine.step()
    engine.add("new", PROMPT[50:90], 1)
    engine.step()
    assert len(engine.tokens("old")) == 2
    assert engine.core.scheduler.running[1].computed == 15


def test_a_second_request_reuses_the_cached_prefix(bench: Make) -> None:
    engine = bench()
    engine.add("a", PROMPT, 1)
    engine.run()
    engine.add("b", [*PROMPT[:64], 1, 2, 3], 1)
    engine.run()
    assert engine.last("b").cached_tokens == 64
    assert engine.core.counters.prefix_hits == 64
    assert engine.core.counters.prefix_queries == 167


def test_a_prompt_cached_in_full_still_computes_its_last_block(bench: Make) -> None:
    engine = bench()
    for name in "ab":
        engine.add(name, PROMPT[:64], 1)
        engine.run()
    assert engine.last("b").cached_tokens == 48


def test_adapters_and_salts_do_not_share_blocks(bench: Make) -> None:
    engine = bench(max_loras=2)
    for index, more in enumerate([{}, {"adapter": "x"}, {"cache_salt": "s"}, {"adapter": "y"}]):
        engine.add(str(index), PROMPT, 1, **more)
        engine.run()
        assert engine.last(str(index)).cached_tokens == 0
    engine.add("again", PROMPT, 1, adapter="x")
    engine.run()
    assert engine.last("again").cached_tokens == 96


def test_the_least_recently_used_prefix_is_evicted_and_announced(bench: Make) -> None:
    engine = bench(blocks=32)
    for start in range(0, 4000, 1000):
        engine.add(str(start), list(range(start, start + 160)), 1)
        engine.run()
    removed = {value for event in engine.events if isinstance(event, BlockRemoved) for value in event.block_hashes}
    stored = [event for event in engine.events if isinstance(event, BlockStored)]
    assert removed and removed <= set(stored[0].block_hashes)
    assert set(stored[-1].block_hashes) <= engine.core.pool.cached_hashes()


def test_events_replayed_give_the_cache_of_the_engine(bench: Make) -> None:
    engine = bench(blocks=32)
    for index in range(30):
        engine.add(str(index), list(range(index % 7 * 50, index % 7 * 50 + 90 + index)), 9)
        engine.run()
    mirror: set[int] = set()
    for event in engine.events:
        if isinstance(event, BlockStored):
            assert event.parent_block_hash is None or event.parent_block_hash in mirror
            mirror |= set(event.block_hashes)
        elif isinstance(event, BlockRemoved):
            mirror -= set(event.block_hashes)
    assert mirror == engine.core.pool.cached_hashes()


def test_the_cache_is_cleared_only_when_nothing_runs(bench: Make) -> None:
    engine = bench()
    engine.add("r", PROMPT, 5)
    engine.step()
    assert not engine.core.clear_cache()
    engine.run()
    assert engine.core.clear_cache()
    assert isinstance(engine.core.pool.drain_events()[-1], AllBlocksCleared)
    engine.core.check()


def test_when_blocks_run_out_the_latest_is_preempted_and_computes_anew(bench: Make) -> None:
    engine = bench(blocks=32)
    engine.add("first", PROMPT[:100], 200)
    engine.add("second", [7, *PROMPT[:99]], 250)
    engine.run()
    assert engine.core.scheduler.preemptions > 0
    assert engine.last("first").stats.preemptions == 0
    assert engine.last("second").stats.preemptions > 0
    assert len(engine.tokens("second")) == 250
    calm = bench(blocks=128)
    calm.add("second", [7, *PROMPT[:99]], 250)
    calm.run()
    assert calm.tokens("second") == engine.tokens("second")


def test_under_the_priority_policy_the_urgent_goes_first(bench: Make) -> None:
    engine = bench(policy="priority", max_num_seqs=1)
    for name, priority in (("low", 9), ("high", 1), ("middle", 5)):
        engine.add(name, PROMPT, 2, priority=priority)
    engine.run()
    ends = [item.request_id for item in engine.outputs if item.finish]
    assert ends == ["high", "middle", "low"]


def test_no_more_adapters_run_together_than_slots(bench: Make) -> None:
    engine = bench(max_loras=1)
    engine.add("x1", PROMPT[:20], 5, adapter="x")
    engine.add("y", PROMPT[:20], 5, adapter="y")
    engine.add("x2", PROMPT[:20], 5, adapter="x")
    engine.step()
    assert engine.core.adapters() == (["x"], ["y"])
    assert engine.core.running == 2
    engine.run()
    assert len(engine.tokens("y")) == 5


def test_an_aborted_request_frees_its_blocks_at_once(bench: Make) -> None:
    engine = bench()
    engine.add("r", PROMPT, 50)
    engine.step()
    assert engine.core.abort("r", engine.now).output_tokens == 1
    assert engine.core.pool.usage == 0
    assert engine.core.abort("r") is None
    engine.core.check()


def test_replicas_give_the_same_greedy_answer(bench: Make) -> None:
    one, two = bench(), bench(blocks=200, max_num_batched_tokens=10)
    for engine in (one, two):
        engine.add("r", PROMPT, 40)
        engine.run()
    assert one.tokens("r") == two.tokens("r")


def test_an_answer_continues_from_any_of_its_tokens(bench: Make) -> None:
    engine = bench()
    engine.add("whole", PROMPT, 30)
    engine.run()
    whole = engine.tokens("whole")
    for cut in (1, 7, 29):
        engine.add(f"rest{cut}", PROMPT + whole[:cut], 30 - cut)
        engine.run()
        assert engine.tokens(f"rest{cut}") == whole[cut:]


def test_seeds_change_the_answer_and_repeat_it(bench: Make) -> None:
    engine = bench()
    for name, seed in (("a", 1), ("b", 2), ("c", 1)):
        engine.add(name, PROMPT, 10, seed=seed)
    engine.run()
    assert engine.tokens("a") == engine.tokens("c") != engine.tokens("b")


def test_a_planned_answer_is_emitted_and_then_stops(bench: Make) -> None:
    engine = bench()
    engine.add("r", PROMPT, 10, planned=(5, 6, 7), ignore_eos=False)
    engine.run()
    assert engine.tokens("r") == [5, 6, 7]
    assert engine.last("r").finish == "stop"


def test_an_answer_ends_where_the_context_ends(bench: Make) -> None:
    engine = bench()
    engine.add("r", list(range(500)), 400)
    engine.run()
    assert len(engine.tokens("r")) == 12
    assert engine.last("r").finish == "length"


@pytest.mark.parametrize(("prompt", "most"), [([], 1), (list(range(512)), 1), ([1], 0)])
def test_a_request_that_cannot_run_is_refused(bench: Make, prompt: list[int], most: int) -> None:
    core: EngineCore = bench().core
    with pytest.raises(ValueError, match="1 to 511 prompt tokens"):
        core.add(EngineRequest("r", prompt, most), 0.0)


def test_a_context_larger_than_the_cache_is_refused(bench: Make) -> None:
    with pytest.raises(ValueError, match="max_model_len: 512 tokens do not fit"):
        bench(blocks=31)


def test_a_pool_hands_out_nothing_rather_than_too_little() -> None:
    pool = BlockPool(4, 16)
    assert pool.allocate(5) is None
    blocks = pool.allocate(4)
    assert blocks is not None
    pool.store(blocks, [11], 0, list(range(16)), Identity())
    pool.release(blocks)
    pool.check()
    assert pool.match([11, 12]) == blocks[:1]
