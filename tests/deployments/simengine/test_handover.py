"""Prefill in one engine, decode in another, both in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hekla.deployments.simengine.sequence import RemoteKv
from hekla.deployments.simengine.steps import Transfer

Make = Callable[..., Any]
PROMPT = list(range(1000, 1100))


def prefill(engine: Any) -> dict[str, Any]:
    engine.add("p", PROMPT, 1, hold_for_decode=True)
    engine.run()
    params: dict[str, Any] = engine.last("p").kv_transfer_params
    return params


def remote(params: dict[str, Any]) -> RemoteKv:
    address = {name: params[f"remote_{name}"] for name in ("engine_id", "request_id", "host", "port")}
    return RemoteKv(**address, tokens=params["remote_num_tokens"])


def test_a_prefill_holds_its_blocks_until_they_are_pulled(bench: Make) -> None:
    engine = bench()
    params = prefill(engine)
    assert params["do_remote_prefill"] and not params["do_remote_decode"]
    assert params["remote_num_tokens"] == 100
    assert len(params["remote_block_ids"][0]) == 7
    assert engine.core.pool.usage == 7 / 64
    assert engine.core.collect_lease(params["remote_request_id"], engine.now) == 100
    assert engine.core.pool.usage == 0
    assert engine.core.collect_lease(params["remote_request_id"], engine.now) is None


def test_a_lease_nobody_collects_expires_and_is_counted(bench: Make) -> None:
    engine = bench(lease_s=30.0)
    params = prefill(engine)
    result = engine.core.step(engine.now)
    assert result.wake_at == params["remote_blocks_expiry_time"] == pytest.approx(engine.now + 30)
    engine.core.step(result.wake_at)
    assert engine.core.leases.expired == 1
    assert engine.core.pool.usage == 0
    assert engine.core.collect_lease("p", engine.now) is None


def test_a_decode_with_pulled_kv_computes_one_token_and_answers_as_one_engine_would(bench: Make) -> None:
    first, second, alone = bench(), bench(transfer=Transfer(1000, 1.0, 5.0)), bench()
    params = prefill(first)
    second.add("d", PROMPT, 20, remote=remote(params))
    assert not second.step()
    pull = second.pulls[0]
    assert pull.tokens == 99
    assert pull.duration_s == pytest.approx(0.005 + 99e-6)
    tokens = first.core.collect_lease(pull.remote.request_id, first.now)
    second.now += pull.duration_s
    second.core.pulled("d", tokens, second.now)
    second.run()
    alone.add("d", PROMPT, 20)
    alone.run()
    assert second.tokens("d") == alone.tokens("d")
    assert second.last("d").stats.external_tokens == 99
    counters = second.core.counters
    assert (counters.external_queries, counters.external_hits) == (100, 99)
    assert counters.prompt_tokens_computed == 1


@pytest.mark.parametrize(("policy", "finish"), [("recompute", "length"), ("fail", "error")])
def test_kv_that_is_gone_is_recomputed_or_fails_as_configured(bench: Make, policy: str, finish: str) -> None:
    engine = bench(kv_load_failure=policy)
    engine.add("d", PROMPT, 3, remote=RemoteKv("e", "gone", "h", 1, 100))
    engine.step()
    engine.core.pulled("d", None, engine.now)
    engine.run()
    assert engine.last("d").finish == finish
    assert engine.core.counters.transfer_failures == 1
    assert engine.core.pool.usage == 0


def test_a_decode_aborted_while_it_pulls_leaves_nothing(bench: Make) -> None:
    engine = bench()
    engine.add("d", PROMPT, 3, remote=RemoteKv("e", "r", "h", 1, 100))
    engine.step()
    engine.core.abort("d", engine.now)
    engine.core.pulled("d", 100, engine.now)
    engine.core.check()
    assert engine.core.pool.usage == 0


def test_pulled_blocks_enter_the_prefix_cache(bench: Make) -> None:
    engine = bench()
    engine.add("d", PROMPT, 1, remote=RemoteKv("e", "r", "h", 1, 100))
    engine.step()
    engine.core.pulled("d", 100, engine.now)
    engine.run()
    engine.add("local", PROMPT, 1)
    engine.run()
    assert engine.last("local").cached_tokens == 96


def test_held_blocks_that_fill_the_cache_make_others_wait_until_they_expire(bench: Make) -> None:
    engine = bench(blocks=32, lease_s=10.0)
    for index in range(4):
        engine.add(f"p{index}", list(range(index * 500, index * 500 + 128)), 1, hold_for_decode=True)
        engine.run()
    engine.add("late", PROMPT, 1)
    assert not engine.step()
    engine.now = engine.core.step(engine.now).wake_at
    engine.run()
    assert engine.last("late").finish == "length"


def test_requests_whose_pulled_kv_fills_the_cache_do_not_block_each_other(bench: Make) -> None:
    engine = bench(blocks=32)
    for index, length in enumerate((200, 200, 90)):
        engine.add(
            f"d{index}", list(range(index * 500, index * 500 + length)), 80, remote=RemoteKv("e", "r", "h", 1, length)
        )
    engine.step()
    assert engine.core.pool.usage == 1
    for pull in engine.pulls:
        engine.core.pulled(pull.request_id, pull.remote.tokens, engine.now)
    engine.run()
    assert [len(engine.tokens(f"d{index}")) for index in range(3)] == [80, 80, 80]


def test_pulled_kv_that_waits_behind_an_unlucky_head_is_given_up(bench: Make) -> None:
    engine = bench(blocks=32, max_num_seqs=1)
    for index, length in enumerate((200, 200, 90)):
        engine.add(
            f"d{index}", list(range(index * 500, index * 500 + length)), 80, remote=RemoteKv("e", "r", "h", 1, length)
        )
    engine.step()
    for pull in engine.pulls:
        engine.core.pulled(pull.request_id, pull.remote.tokens, engine.now)
    engine.run()
    assert [len(engine.tokens(f"d{index}")) for index in range(3)] == [80, 80, 80]
