from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hekla.deployments.simengine.sequence import RemoteKv

Make = Callable[..., Any]

ARRIVALS = st.lists(
    st.fixed_dictionaries(
        {
            "base": st.integers(0, 3),
            "length": st.integers(1, 300),
            "most": st.integers(1, 150),
            "priority": st.integers(0, 3),
            "steps": st.integers(0, 5),
            "abort": st.booleans(),
        }
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrivals=ARRIVALS, policy=st.sampled_from(["fcfs", "priority"]), budget=st.integers(8, 300), seqs=st.integers(1, 6)
)
def test_whatever_arrives_every_request_ends_and_all_blocks_come_back(
    bench: Make, arrivals: list[dict[str, Any]], policy: str, budget: int, seqs: int
) -> None:
    runs = []
    for _ in range(2):
        engine = bench(blocks=32, policy=policy, max_num_batched_tokens=budget, max_num_seqs=seqs)
        aborted: set[str] = set()
        for index, item in enumerate(arrivals):
            prompt = list(range(item["base"] * 1000, item["base"] * 1000 + item["length"]))
            engine.add(str(index), prompt, item["most"], priority=item["priority"])
            for _ in range(item["steps"]):
                engine.step()
            if item["abort"] and engine.core.abort(str(index), engine.now) is not None:
                aborted.add(str(index))
                engine.core.check()
        engine.run()
        for index, item in enumerate(arrivals):
            if str(index) not in aborted:
                assert len(engine.tokens(str(index))) == item["most"]
        assert engine.core.unfinished == 0
        assert engine.core.pool.usage == 0
        runs.append([(item.request_id, item.token) for item in engine.outputs])
    assert runs[0] == runs[1]


HANDOVERS = st.lists(
    st.fixed_dictionaries(
        {
            "base": st.integers(0, 3),
            "length": st.integers(1, 300),
            "most": st.integers(1, 150),
            "remote": st.booleans(),
            "held": st.sampled_from([None, 0, 50, 1000]),
            "hold": st.booleans(),
            "steps": st.integers(0, 3),
            "late": st.booleans(),
        }
    ),
    min_size=1,
    max_size=10,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals=HANDOVERS, policy=st.sampled_from(["fcfs", "priority"]), failure=st.sampled_from(["recompute", "fail"]))
def test_whatever_is_pulled_held_or_lost_every_request_ends_and_all_blocks_come_back(
    bench: Make, arrivals: list[dict[str, Any]], policy: str, failure: str
) -> None:
    engine = bench(blocks=32, policy=policy, kv_load_failure=failure, lease_s=5.0)
    for index, item in enumerate(arrivals):
        prompt = list(range(item["base"] * 1000, item["base"] * 1000 + item["length"]))
        remote = RemoteKv("e", str(index), "h", 1, item["length"]) if item["remote"] else None
        engine.add(str(index), prompt, item["most"], remote=remote, hold_for_decode=item["hold"])
        for _ in range(item["steps"]):
            engine.step()
        if not item["late"]:
            answer_pulls(engine, arrivals)
    for _ in range(1000):
        moved = engine.step() or answer_pulls(engine, arrivals)
        if not moved:
            if not engine.core.unfinished and not len(engine.core.leases):
                break
            engine.now = engine.core.leases.next_expiry or engine.now
    assert engine.core.unfinished == 0
    assert engine.core.pool.usage == 0
    for index, item in enumerate(arrivals):
        end = engine.last(str(index))
        assert end.finish == "error" or len(engine.tokens(str(index))) == item["most"]


def answer_pulls(engine: Any, arrivals: list[dict[str, Any]]) -> bool:
    pulls, engine.pulls = engine.pulls, []
    for pull in pulls:
        engine.core.pulled(pull.request_id, arrivals[int(pull.request_id)]["held"], engine.now)
        engine.core.check()
    return bool(pulls)
