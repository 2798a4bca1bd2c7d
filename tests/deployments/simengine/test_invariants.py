from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Make = Callable[..., Any]

ARRIVALS = st.lists(
    st.fixed_dictionaries(
        {
            "base": st.integers(0, 3),
            "length": st.integers(1, 200),
            "most": st.integers(1, 80),
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
