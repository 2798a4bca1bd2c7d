from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import mean, pstdev

import pytest

from hekla.simulation.workload import azure, mixed, mooncake, sessions, shared_prefix
from hekla.simulation.workload.arrivals import gamma, log_normal
from hekla.simulation.workload.interface import Workload

DATA = Path(os.environ.get("HEKLA_DATA") or Path(__file__).parents[3] / "shared" / "data") / "traces"


def every_workload(seed: int) -> list[Workload]:
    return [
        *(shared_prefix.open_loop(shape, seed, rate=5, seconds=20) for shape in shared_prefix.PRESETS.values()),
        shared_prefix.closed_loop(shared_prefix.W2, seed, concurrency=30),
        sessions.conversations(sessions.CODE_GENERATION, seed, users=5, seconds=60),
        sessions.conversations(sessions.CHAT, seed, users=5, seconds=60),
        sessions.reasoning(seed, concurrency=10),
        mixed.zipf_groups("W7", seed, rate=20, seconds=10),
        mixed.flood(seed, rates={"a": 1.0, "b": 5.0}, seconds=20),
        mixed.adapters(seed, rate=10, seconds=10),
        mixed.long_and_short(seed, rate=10, seconds=10),
        azure.with_prefixes("W6", azure.like(azure.CODE_LIKE, seed, seconds=200), seed),
        mooncake.window("W3", mooncake.conversation_like(seed, seconds=300), seed, start_s=0, seconds=200),
    ]


def test_every_workload_ascends_in_time_and_its_blocks_agree_with_its_lengths() -> None:
    for workload in every_workload(1):
        times = [item.arrived_s for item in workload.requests]
        assert times == sorted(times) and times, workload.name
        for item in workload.requests:
            item.check(workload.block_tokens)


def test_a_workload_is_a_function_of_its_seed() -> None:
    def told(seed: int) -> list[tuple[float, int, int]]:
        return [(r.arrived_s, r.prompt_tokens, r.output_tokens) for w in every_workload(seed) for r in w.requests]

    assert told(3) == told(3) != told(4)


def test_bursts_have_the_variation_that_was_asked_for() -> None:
    for cv in (0.5, 1.0, 3.0):
        times = gamma(Random(1), 10.0, 3000.0, cv=cv)
        gaps = [b - a for a, b in pairwise(times)]
        assert mean(gaps) == pytest.approx(0.1, rel=0.1)
        assert pstdev(gaps) / mean(gaps) == pytest.approx(cv, rel=0.1)


def test_log_normal_lengths_have_their_mean_and_stay_within_bounds() -> None:
    dice = Random(1)
    drawn = [log_normal(dice, 800, 400, 1, 10**9) for _ in range(20_000)]
    assert mean(drawn) == pytest.approx(800, rel=0.03)
    assert {log_normal(dice, 800, 4000, 10, 20) for _ in range(200)} <= set(range(10, 21))


def test_nonsense_arrivals_are_refused() -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        gamma(Random(1), 0.0, 10.0, cv=1.0)
    with pytest.raises(ValueError, match="more than 5000000 arrivals"):
        gamma(Random(1), 1e6, 1e6, cv=1.0)


def test_kthenas_shape_is_256_groups_of_32_that_share_4096_tokens() -> None:
    prompts = shared_prefix.prompts_of(shared_prefix.W2, Random(1))
    assert len(prompts) == 8192
    assert len({item.blocks[:32] for item in prompts}) == 256
    assert len({item.blocks for item in prompts}) == 8192
    assert {(item.prompt_tokens, item.output_tokens) for item in prompts} == {(4352, 128)}


def test_a_turns_prompt_goes_on_from_the_answer_before() -> None:
    workload = sessions.conversations(sessions.CHAT, 1, users=1, seconds=10_000)
    before = workload.requests[0]
    for _ in range(5):
        (after,) = workload.follow(before, before.arrived_s + 1.0)
        if after.session != before.session:
            break
        assert after.arrived_s > before.arrived_s + 1.0
        assert after.blocks[: len(before.blocks) + len(before.after)] == before.blocks + before.after
        assert after.prompt_tokens > before.prompt_tokens + before.output_tokens
        before = after


def test_a_closed_loop_ends_when_every_prompt_was_sent() -> None:
    workload = shared_prefix.closed_loop(shared_prefix.W2, 1, concurrency=4, requests=6)
    assert len(workload.requests) == 4
    sent = [request.id for _ in range(4) for request in workload.follow(workload.requests[0], 9.0)]
    assert sent == [4, 5]


def test_a_mooncake_line_becomes_a_request(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"timestamp": 3000, "input_length": 1100, "output_length": 5, "hash_ids": [0, 7, 8]}\n')
    (item,) = mooncake.read(trace)
    assert (item.arrived_s, item.prompt_tokens, item.output_tokens, item.blocks) == (3.0, 1100, 5, (0, 7))
    (split,) = mooncake.read(trace, split=8)
    assert split.blocks[:9] == (0, 1, 2, 3, 4, 5, 6, 7, 56) and len(split.blocks) == 1100 // 64


@pytest.mark.parametrize(
    "line", ["[]", "{}", '{"timestamp": 0, "input_length": 0, "output_length": 1, "hash_ids": []}', "x"]
)
def test_a_line_that_is_no_request_is_named(tmp_path: Path, line: str) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"timestamp": 0, "input_length": 9, "output_length": 1, "hash_ids": [1]}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"trace\.jsonl, line 2"):
        mooncake.read(trace)


def test_an_azure_row_becomes_a_request_and_a_broken_one_is_named(tmp_path: Path) -> None:
    trace = tmp_path / "azure.csv"
    header = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"
    trace.write_text(header + "2023-11-16 18:15:50.9951690,396,109\n")
    rows = azure.read(trace)
    assert rows[0] == (0.0, 374, 44)
    assert rows[1][0] == pytest.approx(4.314579, abs=1e-6)
    trace.write_text(header + "yesterday,1,2\n")
    with pytest.raises(ValueError, match=r"azure\.csv, line 3"):
        azure.read(trace)


def test_the_real_conversation_trace_has_its_published_statistics() -> None:
    path = DATA / mooncake.CONVERSATION
    if not path.is_file():
        pytest.skip("the Mooncake trace is not here (HEKLA_DATA)")
    trace = mooncake.read(path)
    assert len(trace) == 12_031
    assert mean(item.prompt_tokens for item in trace) == pytest.approx(12_035, rel=0.01)
    assert mooncake.infinite_hit_share(trace) == pytest.approx(0.382, abs=0.002), "36.6 % with partial last blocks"


def test_the_likenesses_of_mooncakes_traces_have_about_their_statistics() -> None:
    conversation = mooncake.conversation_like(1, seconds=3537)
    assert mooncake.infinite_hit_share(conversation) == pytest.approx(0.382, abs=0.03)
    assert mean(item.prompt_tokens for item in conversation) == pytest.approx(12_035, rel=0.15)
    assert mean(item.output_tokens for item in conversation) == pytest.approx(343, rel=0.15)
    tools = mooncake.tool_agent_like(1, seconds=3537)
    assert mooncake.infinite_hit_share(tools) == pytest.approx(0.59, abs=0.05)
    assert mean(item.prompt_tokens for item in tools) == pytest.approx(8596, rel=0.2)


def test_the_real_azure_trace_has_its_published_statistics() -> None:
    path = DATA / azure.CONVERSATION
    if not path.is_file():
        pytest.skip("the Azure trace is not here (HEKLA_DATA)")
    rows = azure.read(path)
    assert len(rows) == 19_366
    assert mean(row[1] for row in rows) == pytest.approx(1155, rel=0.01)
    assert mean(row[2] for row in rows) == pytest.approx(211, rel=0.01)


def test_without_sharing_lengths_and_times_stay_the_same() -> None:
    workload = mixed.zipf_groups("W7", 1, rate=20, seconds=5)
    alone = workload.without_sharing()
    assert not any(item.blocks for item in alone.requests)
    assert [item.arrived_s for item in alone.requests] == [item.arrived_s for item in workload.requests]
