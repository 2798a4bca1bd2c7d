"""Times per key against the simplest thing that could be right: a dict."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hekla.platform.api.meta import Ref
from hekla.platform.control.timers import STALE_ENTRIES_MAX, Timers

KEYS = [Ref("Model", "default", name) for name in "abc"]
steps = st.lists(
    st.tuples(st.sampled_from(["set", "set_earlier", "drop", "pop"]), st.sampled_from(KEYS), st.integers(0, 20))
)


@given(steps)
def test_timers_agree_with_a_dict(story: list[tuple[str, Ref, int]]) -> None:
    timers, model = Timers(), dict[Ref, float]()
    for step, key, at in story:
        if step == "set":
            timers.set(key, at)
            model[key] = at
        elif step == "set_earlier":
            timers.set_earlier(key, at)
            model[key] = min(at, model.get(key, at))
        elif step == "drop":
            timers.drop(key)
            model.pop(key, None)
        else:
            due = sorted((when, key) for key, when in model.items() if when <= at)
            assert timers.pop_due(at) == due
            model = {key: when for key, when in model.items() if when > at}
        assert timers.next_s() == min(model.values(), default=None)
        assert (len(timers), [key in timers for key in KEYS]) == (len(model), [key in model for key in KEYS])


def test_a_key_set_again_and_again_does_not_grow_the_heap() -> None:
    timers = Timers()
    for at in range(10_000, 0, -1):
        timers.set(KEYS[0], at)
        assert timers.entries <= 2 + STALE_ENTRIES_MAX + 1
    assert timers.pop_due(10_000) == [(1, KEYS[0])]
