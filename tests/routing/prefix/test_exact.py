from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hekla.routing.prefix.batch import DEVICE, EVERY_TIER, HOST, STORAGE, Cleared, Removed, Stored
from hekla.routing.prefix.exact import ExactIndex

PROMPT = "abcdefghijklmnopqrstuvwxyz012345"
LONGER = PROMPT + "!"


@pytest.fixture
def index(lab: Any) -> ExactIndex:
    made: ExactIndex = lab.exact(host_memory_credit=0.5, storage_credit=0.25)
    return made


def tokens(lab: Any, index: ExactIndex, prompt: str, *engines: str, **request: Any) -> list[float]:
    index.check()
    return index.match(lab.request(prompt, **request), lab.candidates(*engines)).tokens


def test_blocks_told_one_by_one_make_the_same_prefix_as_all_at_once(lab: Any, index: ExactIndex) -> None:
    for end in range(4, 33, 4):
        index.apply("a", lab.batch(lab.stored(PROMPT[:end], first=end // 4 - 1)))
    index.apply("b", lab.batch(lab.stored(PROMPT)))
    assert tokens(lab, index, LONGER, "a", "b") == [32, 32]


def test_consecutive_blocks_count_and_what_comes_after_a_hole_does_not_s19(lab: Any, index: ExactIndex) -> None:
    """S19: A owns blocks 0, 1 and 3, B owns 0, of 4: 50 and 25 of 100."""
    prompt = PROMPT[:16]
    index.apply("A", lab.batch(lab.stored(prompt), Removed(lab.names(prompt)[2:3])))
    index.apply("B", lab.batch(lab.stored(prompt[:4])))
    match = index.match(lab.request(prompt), lab.candidates("A", "B"))
    assert [held / match.blocks_total * 100 for held in match.blocks] == [50, 25]


def test_a_removed_block_ends_the_prefix_there(lab: Any, index: ExactIndex) -> None:
    index.apply("a", lab.batch(lab.stored(PROMPT)))
    index.apply("a", lab.batch(Removed(lab.names(PROMPT)[5:])))
    assert tokens(lab, index, LONGER, "a") == [20]
    index.apply("a", lab.batch(Removed(lab.names(PROMPT)[:1])))
    assert tokens(lab, index, LONGER, "a") == [0]


def test_a_cleared_cache_holds_nothing(lab: Any, index: ExactIndex) -> None:
    index.apply("a", lab.batch(lab.stored(PROMPT), lab.stored(PROMPT, tier=HOST)))
    index.apply("a", lab.batch(Cleared()))
    assert tokens(lab, index, LONGER, "a") == [0]
    assert index.entries == 0
    assert index.complete == {"a"}


def test_slower_tiers_count_for_less_and_only_where_faster_ones_end(lab: Any, index: ExactIndex) -> None:
    index.apply(
        "a", lab.batch(lab.stored(PROMPT[:8]), lab.stored(PROMPT[:16], tier=HOST), lab.stored(PROMPT, tier=STORAGE))
    )
    assert tokens(lab, index, LONGER, "a") == [8 + 0.5 * 8 + 0.25 * 16]


def test_a_block_in_host_memory_bridges_a_hole_in_device_memory(lab: Any, index: ExactIndex) -> None:
    index.apply(
        "a", lab.batch(lab.stored(PROMPT), lab.stored(PROMPT[:8], tier=HOST), Removed(lab.names(PROMPT)[:1], DEVICE))
    )
    assert tokens(lab, index, LONGER, "a") == [0.5 * 32]


def test_a_block_moved_without_its_tokens_is_known_by_its_name(lab: Any, index: ExactIndex) -> None:
    names = lab.names(PROMPT)
    index.apply("a", lab.batch(lab.stored(PROMPT), Stored(names, None, (), 0, tier=HOST), Removed(names, DEVICE)))
    assert tokens(lab, index, LONGER, "a") == [16]
    index.apply("a", lab.batch(Stored([b"never seen"], None, (), 0, tier=HOST)))
    assert index.counts.orphans == 1


def test_a_removal_that_names_no_tier_is_from_all(lab: Any, index: ExactIndex) -> None:
    index.apply("a", lab.batch(lab.stored(PROMPT), lab.stored(PROMPT, tier=HOST)))
    index.apply("a", lab.batch(Removed(lab.names(PROMPT), EVERY_TIER)))
    assert index.entries == 0


def test_an_engine_is_as_good_as_its_best_rank(lab: Any, index: ExactIndex) -> None:
    index.apply("a", lab.batch(lab.stored(PROMPT[:8]), rank=0))
    index.apply("a", lab.batch(lab.stored(PROMPT[:24]), rank=1))
    index.apply("b", lab.batch(lab.stored(PROMPT[:16])))
    assert tokens(lab, index, LONGER, "a", "b") == [24, 16]
    assert index.best_rank(lab.request(LONGER), "a") == 1
    assert index.best_rank(lab.request("nothing like it"), "a") is None


def test_ranks_do_not_add_up(lab: Any, index: ExactIndex) -> None:
    index.apply("a", lab.batch(lab.stored(PROMPT[:8])), rank=0)
    index.apply("a", lab.batch(lab.stored(PROMPT), Removed(lab.names(PROMPT)[:2])), rank=1)
    assert tokens(lab, index, LONGER, "a") == [8]


def test_sliding_window_blocks_are_no_prefix(lab: Any, index: ExactIndex) -> None:
    index.begin("a", is_complete=True)
    index.apply("a", lab.batch(lab.stored(PROMPT, group=1, is_whole_prefix=False)))
    assert tokens(lab, index, LONGER, "a") == [0]
    assert index.counts.passed_over == 8
    assert index.complete == set()
    assert not index.knows("a")


def test_of_a_hybrid_models_groups_only_full_attention_counts(lab: Any, index: ExactIndex) -> None:
    """Both groups name a block alike: one's removal is not the other's."""
    index.begin("a", is_complete=True)
    windowed = lab.stored(PROMPT, group=0, is_whole_prefix=False)
    index.apply("a", lab.batch(windowed, lab.stored(PROMPT, group=1), Removed(lab.names(PROMPT)[:6], group=0)))
    assert tokens(lab, index, LONGER, "a") == [32]
    assert index.complete == {"a"}
    index.apply("a", lab.batch(Removed(lab.names(PROMPT)[6:], group=1)))
    assert tokens(lab, index, LONGER, "a") == [24]


def test_a_block_computed_twice_is_there_until_both_copies_are_gone(lab: Any, index: ExactIndex) -> None:
    index.apply("a", lab.batch(lab.stored(PROMPT), lab.stored(PROMPT)))
    index.apply("a", lab.batch(Removed(lab.names(PROMPT))))
    assert tokens(lab, index, LONGER, "a") == [32]
    index.apply("a", lab.batch(Removed(lab.names(PROMPT))))
    assert tokens(lab, index, LONGER, "a") == [0]


def test_one_block_under_two_names_is_there_until_both_are_gone(lab: Any, index: ExactIndex) -> None:
    again = lab.stored(PROMPT)._replace(keys=list(range(8)))
    index.apply("a", lab.batch(lab.stored(PROMPT), again, Removed(lab.names(PROMPT))))
    assert tokens(lab, index, LONGER, "a") == [32]
    index.apply("a", lab.batch(Removed(list(range(8)))))
    assert tokens(lab, index, LONGER, "a") == [0]


def test_blocks_whose_parent_was_never_told_are_left_out_and_counted(lab: Any, index: ExactIndex) -> None:
    index.apply("a", lab.batch(lab.stored(PROMPT, first=3)))
    assert tokens(lab, index, LONGER, "a") == [0]
    assert index.counts.orphans == 5
    index.apply("a", lab.batch(Removed(lab.names(PROMPT))))


def test_adapters_have_chains_of_their_own(lab: Any, index: ExactIndex) -> None:
    index.apply(
        "a", lab.batch(lab.stored(PROMPT[:16]), lab.stored(PROMPT, adapter="poet")._replace(keys=list(range(8))))
    )
    assert tokens(lab, index, LONGER, "a", model="poet", is_adapter=True) == [32]
    assert tokens(lab, index, LONGER, "a", model="poet") == [16]
    assert tokens(lab, index, LONGER, "a", model="other", is_adapter=True) == [0]


def test_a_salted_request_finds_what_was_stored_with_its_salt(lab: Any, index: ExactIndex) -> None:
    stored = lab.stored(PROMPT)
    salted = [lab.hasher.keyed(stored.digests[0], ["tenant"]), *stored.digests[1:]]
    index.apply("a", lab.batch(stored._replace(digests=salted)))
    request = lab.request(LONGER)
    request.memo["prefix.cache_salt"] = "tenant"
    assert index.match(request, lab.candidates("a")).tokens == [32]
    assert tokens(lab, index, LONGER, "a") == [0]


def test_engines_with_different_block_sizes_are_compared_in_tokens(lab: Any, index: ExactIndex) -> None:
    digests = lab.hasher.digests(tokens_of(PROMPT), 8).tolist()
    index.apply("big", lab.batch(Stored([1, 2, 3], None, digests[:3], 8)))
    index.apply("small", lab.batch(lab.stored(PROMPT[:20])))
    assert tokens(lab, index, LONGER, "big", "small") == [24, 20]


def tokens_of(text: str) -> Any:
    from hekla.routing.prefix.hashing import token_array

    return token_array(list(map(ord, text)))


def test_an_engine_that_begins_anew_may_have_another_block_size(lab: Any, index: ExactIndex) -> None:
    index.apply("a", lab.batch(lab.stored(PROMPT)))
    index.begin("a", is_complete=True)
    index.apply("a", lab.batch(Stored([1], None, lab.hasher.digests(tokens_of(PROMPT[:16]), 16).tolist(), 16)))
    assert tokens(lab, index, LONGER, "a") == [16]


def test_an_engine_heard_from_the_middle_on_is_not_known_completely(lab: Any, index: ExactIndex) -> None:
    index.begin("a", is_complete=False)
    index.begin("b", is_complete=True)
    assert index.complete == {"b"}
    assert index.knows("a")


def test_above_its_limit_an_engines_blocks_are_refused_and_counted(lab: Any) -> None:
    index = lab.exact(engine_blocks_max=3)
    index.apply("a", lab.batch(lab.stored(PROMPT)))
    assert index.match(lab.request(LONGER), lab.candidates("a")).blocks == [3]
    assert index.counts.refused == 5
    index.check()


def test_a_prompt_that_is_not_tokenised_matches_nothing(lab: Any, index: ExactIndex) -> None:
    index.apply("a", lab.batch(lab.stored(PROMPT)))
    assert index.match(lab.request(LONGER, tokenised=False), lab.candidates("a")).tokens == [0]


def test_ids_that_no_engine_takes_match_nothing(lab: Any, index: ExactIndex) -> None:
    index.apply("a", lab.batch(lab.stored(PROMPT)))
    request = lab.request(LONGER)
    request.token_ids = [-1, 2**40, *range(20)]
    assert index.match(request, lab.candidates("a")).tokens == [0]


def test_credit_lasts_until_the_last_request_with_the_prompt_has_ended(lab: Any, index: ExactIndex) -> None:
    index.apply("a", lab.batch(lab.stored("unrelated...")))
    first, second = lab.request(PROMPT), lab.request(PROMPT)
    for request in (first, second):
        index.routed(request, "a", 0.0)
    index.finished(first, "a", 1.0, succeeded=True)
    assert tokens(lab, index, LONGER, "a") == [32]
    index.finished(second, "a", 1.0, succeeded=True)
    index.finished(second, "a", 1.0, succeeded=True)
    assert tokens(lab, index, LONGER, "a") == [0]


def test_a_slot_used_again_remembers_nothing_of_who_had_it(lab: Any, index: ExactIndex) -> None:
    index.apply("a", lab.batch(lab.stored(PROMPT)))
    request = lab.request(PROMPT)
    index.routed(request, "a", 0.0)
    index.forget("a")
    index.apply("b", lab.batch(lab.stored("unrelated...")))
    another = lab.request(PROMPT)
    index.routed(another, "b", 0.0)
    index.finished(request, "a", 1.0, succeeded=True)
    assert tokens(lab, index, LONGER, "a", "b") == [0, 32]
    index.finished(another, "b", 1.0, succeeded=True)
    assert tokens(lab, index, LONGER, "b") == [0]


Act = st.tuples(
    st.sampled_from(["store", "store", "remove", "clear", "forget"]), st.sampled_from("xyz"), st.integers(0, 1),
    st.integers(0, 2), st.text("ab", min_size=4, max_size=20), st.integers(0, 4),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(Act, max_size=30), st.text("ab", max_size=24))
def test_the_index_agrees_with_a_naive_one(lab: Any, acts: list[Any], asked: str) -> None:
    """The naive one keeps, per engine and rank, a list of (tier, prompt up to a block's end) with copies."""
    index = lab.exact(host_memory_credit=0.5, storage_credit=0.25)
    naive: dict[Any, Any] = {}
    for act, engine, rank, tier, prompt, at in acts:
        held = naive.setdefault((engine, rank), [])
        if act == "store":
            index.apply(engine, lab.batch(lab.stored(prompt, tier=tier), rank=rank))
            held += [(tier, name) for name in lab.names(prompt)]
        elif act == "remove" and at < len(lab.names(prompt)):
            name = lab.names(prompt)[at]
            index.apply(engine, lab.batch(Removed([name], tier), rank=rank))
            if (tier, name) in held:
                held.remove((tier, name))
        elif act == "clear":
            index.apply(engine, lab.batch(Cleared(), rank=rank))
            held.clear()
        elif act == "forget":
            index.forget(engine)
            naive = {key: value for key, value in naive.items() if key[0] != engine}
    expected = [max((naive_tokens(lab, naive[key], asked) for key in naive if key[0] == e), default=0.0) for e in "xyz"]
    assert tokens(lab, index, asked, *"xyz") == expected


def naive_tokens(lab: Any, held: list[tuple[int, bytes]], asked: str) -> float:
    names, worth, reached = lab.names(asked[: max(len(asked) - 1, 0)]), 0.0, DEVICE
    for name in names:
        tiers = [tier for tier, each in held if each == name]
        if not tiers:
            break
        reached = max(reached, min(tiers))
        worth += 4 * (1.0, 0.5, 0.25)[reached]
    return worth
