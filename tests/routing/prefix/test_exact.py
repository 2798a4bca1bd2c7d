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
def index(kit: Any) -> ExactIndex:
    made: ExactIndex = kit.exact(host_memory_credit=0.5, storage_credit=0.25)
    return made


def tokens(kit: Any, index: ExactIndex, prompt: str, *engines: str, **request: Any) -> list[float]:
    index.check()
    return index.match(kit.request(prompt, **request), kit.candidates(*engines)).tokens


def test_blocks_told_one_by_one_make_the_same_prefix_as_all_at_once(kit: Any, index: ExactIndex) -> None:
    for end in range(4, 33, 4):
        index.apply("a", kit.batch(kit.stored(PROMPT[:end], first=end // 4 - 1)))
    index.apply("b", kit.batch(kit.stored(PROMPT)))
    assert tokens(kit, index, LONGER, "a", "b") == [32, 32]


def test_consecutive_blocks_count_and_what_comes_after_a_hole_does_not_s19(kit: Any, index: ExactIndex) -> None:
    """S19: A owns blocks 0, 1 and 3, B owns 0, of 4: 50 and 25 of 100."""
    prompt = PROMPT[:16]
    index.apply("A", kit.batch(kit.stored(prompt), Removed(kit.names(prompt)[2:3])))
    index.apply("B", kit.batch(kit.stored(prompt[:4])))
    match = index.match(kit.request(prompt), kit.candidates("A", "B"))
    assert [held / match.blocks_total * 100 for held in match.blocks] == [50, 25]


def test_a_removed_block_ends_the_prefix_there(kit: Any, index: ExactIndex) -> None:
    index.apply("a", kit.batch(kit.stored(PROMPT)))
    index.apply("a", kit.batch(Removed(kit.names(PROMPT)[5:])))
    assert tokens(kit, index, LONGER, "a") == [20]
    index.apply("a", kit.batch(Removed(kit.names(PROMPT)[:1])))
    assert tokens(kit, index, LONGER, "a") == [0]


def test_a_cleared_cache_holds_nothing(kit: Any, index: ExactIndex) -> None:
    index.apply("a", kit.batch(kit.stored(PROMPT), kit.stored(PROMPT, tier=HOST)))
    index.apply("a", kit.batch(Cleared()))
    assert tokens(kit, index, LONGER, "a") == [0]
    assert index.entries == 0
    assert index.complete == {"a"}


def test_slower_tiers_count_for_less_and_only_where_faster_ones_end(kit: Any, index: ExactIndex) -> None:
    index.apply(
        "a", kit.batch(kit.stored(PROMPT[:8]), kit.stored(PROMPT[:16], tier=HOST), kit.stored(PROMPT, tier=STORAGE))
    )
    assert tokens(kit, index, LONGER, "a") == [8 + 0.5 * 8 + 0.25 * 16]


def test_a_block_in_host_memory_bridges_a_hole_in_device_memory(kit: Any, index: ExactIndex) -> None:
    index.apply(
        "a", kit.batch(kit.stored(PROMPT), kit.stored(PROMPT[:8], tier=HOST), Removed(kit.names(PROMPT)[:1], DEVICE))
    )
    assert tokens(kit, index, LONGER, "a") == [0.5 * 32]


def test_a_block_moved_without_its_tokens_is_known_by_its_name(kit: Any, index: ExactIndex) -> None:
    names = kit.names(PROMPT)
    index.apply("a", kit.batch(kit.stored(PROMPT), Stored(names, None, (), 0, tier=HOST), Removed(names, DEVICE)))
    assert tokens(kit, index, LONGER, "a") == [16]
    index.apply("a", kit.batch(Stored([b"never seen"], None, (), 0, tier=HOST)))
    assert index.counts.orphans == 1


def test_a_removal_that_names_no_tier_is_from_all(kit: Any, index: ExactIndex) -> None:
    index.apply("a", kit.batch(kit.stored(PROMPT), kit.stored(PROMPT, tier=HOST)))
    index.apply("a", kit.batch(Removed(kit.names(PROMPT), EVERY_TIER)))
    assert index.entries == 0


def test_an_engine_is_as_good_as_its_best_rank(kit: Any, index: ExactIndex) -> None:
    index.apply("a", kit.batch(kit.stored(PROMPT[:8]), rank=0))
    index.apply("a", kit.batch(kit.stored(PROMPT[:24]), rank=1))
    index.apply("b", kit.batch(kit.stored(PROMPT[:16])))
    assert tokens(kit, index, LONGER, "a", "b") == [24, 16]
    assert index.best_rank(kit.request(LONGER), "a") == 1
    assert index.best_rank(kit.request("nothing like it"), "a") is None


def test_ranks_do_not_add_up(kit: Any, index: ExactIndex) -> None:
    index.apply("a", kit.batch(kit.stored(PROMPT[:8])), rank=0)
    index.apply("a", kit.batch(kit.stored(PROMPT), Removed(kit.names(PROMPT)[:2])), rank=1)
    assert tokens(kit, index, LONGER, "a") == [8]


def test_sliding_window_blocks_are_no_prefix(kit: Any, index: ExactIndex) -> None:
    index.begin("a", is_complete=True)
    index.apply("a", kit.batch(kit.stored(PROMPT, group=1, is_whole_prefix=False)))
    assert tokens(kit, index, LONGER, "a") == [0]
    assert index.counts.passed_over == 8
    assert index.complete == set()
    assert not index.knows("a")


def test_of_a_hybrid_models_groups_only_full_attention_counts(kit: Any, index: ExactIndex) -> None:
    """Both groups name a block alike: one's removal is not the other's."""
    index.begin("a", is_complete=True)
    windowed = kit.stored(PROMPT, group=0, is_whole_prefix=False)
    index.apply("a", kit.batch(windowed, kit.stored(PROMPT, group=1), Removed(kit.names(PROMPT)[:6], group=0)))
    assert tokens(kit, index, LONGER, "a") == [32]
    assert index.complete == {"a"}
    index.apply("a", kit.batch(Removed(kit.names(PROMPT)[6:], group=1)))
    assert tokens(kit, index, LONGER, "a") == [24]


def test_a_block_computed_twice_is_there_until_both_copies_are_gone(kit: Any, index: ExactIndex) -> None:
    index.apply("a", kit.batch(kit.stored(PROMPT), kit.stored(PROMPT)))
    index.apply("a", kit.batch(Removed(kit.names(PROMPT))))
    assert tokens(kit, index, LONGER, "a") == [32]
    index.apply("a", kit.batch(Removed(kit.names(PROMPT))))
    assert tokens(kit, index, LONGER, "a") == [0]


def test_one_block_under_two_names_is_there_until_both_are_gone(kit: Any, index: ExactIndex) -> None:
    again = kit.stored(PROMPT)._replace(keys=list(range(8)))
    index.apply("a", kit.batch(kit.stored(PROMPT), again, Removed(kit.names(PROMPT))))
    assert tokens(kit, index, LONGER, "a") == [32]
    index.apply("a", kit.batch(Removed(list(range(8)))))
    assert tokens(kit, index, LONGER, "a") == [0]


def test_blocks_whose_parent_was_never_told_are_left_out_and_counted(kit: Any, index: ExactIndex) -> None:
    index.apply("a", kit.batch(kit.stored(PROMPT, first=3)))
    assert tokens(kit, index, LONGER, "a") == [0]
    assert index.counts.orphans == 5
    index.apply("a", kit.batch(Removed(kit.names(PROMPT))))


def test_adapters_have_chains_of_their_own(kit: Any, index: ExactIndex) -> None:
    index.apply(
        "a", kit.batch(kit.stored(PROMPT[:16]), kit.stored(PROMPT, adapter="poet")._replace(keys=list(range(8))))
    )
    assert tokens(kit, index, LONGER, "a", model="poet", is_adapter=True) == [32]
    assert tokens(kit, index, LONGER, "a", model="poet") == [16]
    assert tokens(kit, index, LONGER, "a", model="other", is_adapter=True) == [0]


def test_a_salted_request_finds_what_was_stored_with_its_salt(kit: Any, index: ExactIndex) -> None:
    stored = kit.stored(PROMPT)
    salted = [kit.hasher.keyed(stored.digests[0], ["tenant"]), *stored.digests[1:]]
    index.apply("a", kit.batch(stored._replace(digests=salted)))
    request = kit.request(LONGER)
    request.memo["prefix.cache_salt"] = "tenant"
    assert index.match(request, kit.candidates("a")).tokens == [32]
    assert tokens(kit, index, LONGER, "a") == [0]


def test_engines_with_different_block_sizes_are_compared_in_tokens(kit: Any, index: ExactIndex) -> None:
    digests = kit.hasher.digests(kit_tokens(PROMPT), 8).tolist()
    index.apply("big", kit.batch(Stored([1, 2, 3], None, digests[:3], 8)))
    index.apply("small", kit.batch(kit.stored(PROMPT[:20])))
    assert tokens(kit, index, LONGER, "big", "small") == [24, 20]


def kit_tokens(text: str) -> Any:
    from hekla.routing.prefix.hashing import token_array

    return token_array(list(map(ord, text)))


def test_an_engine_that_begins_anew_may_have_another_block_size(kit: Any, index: ExactIndex) -> None:
    index.apply("a", kit.batch(kit.stored(PROMPT)))
    index.begin("a", is_complete=True)
    index.apply("a", kit.batch(Stored([1], None, kit.hasher.digests(kit_tokens(PROMPT[:16]), 16).tolist(), 16)))
    assert tokens(kit, index, LONGER, "a") == [16]


def test_an_engine_heard_from_the_middle_on_is_not_known_completely(kit: Any, index: ExactIndex) -> None:
    index.begin("a", is_complete=False)
    index.begin("b", is_complete=True)
    assert index.complete == {"b"}
    assert index.knows("a")


def test_above_its_limit_an_engines_blocks_are_refused_and_counted(kit: Any) -> None:
    index = kit.exact(engine_blocks_max=3)
    index.apply("a", kit.batch(kit.stored(PROMPT)))
    assert index.match(kit.request(LONGER), kit.candidates("a")).blocks == [3]
    assert index.counts.refused == 5
    index.check()


def test_a_prompt_that_is_not_tokenised_matches_nothing(kit: Any, index: ExactIndex) -> None:
    index.apply("a", kit.batch(kit.stored(PROMPT)))
    assert index.match(kit.request(LONGER, tokenised=False), kit.candidates("a")).tokens == [0]


def test_ids_that_no_engine_takes_match_nothing(kit: Any, index: ExactIndex) -> None:
    index.apply("a", kit.batch(kit.stored(PROMPT)))
    request = kit.request(LONGER)
    request.token_ids = [-1, 2**40, *range(20)]
    assert index.match(request, kit.candidates("a")).tokens == [0]


def test_credit_lasts_until_the_last_request_with_the_prompt_has_ended(kit: Any, index: ExactIndex) -> None:
    index.apply("a", kit.batch(kit.stored("unrelated...")))
    first, second = kit.request(PROMPT), kit.request(PROMPT)
    for request in (first, second):
        index.routed(request, "a", 0.0)
    index.finished(first, "a", 1.0, succeeded=True)
    assert tokens(kit, index, LONGER, "a") == [32]
    index.finished(second, "a", 1.0, succeeded=True)
    index.finished(second, "a", 1.0, succeeded=True)
    assert tokens(kit, index, LONGER, "a") == [0]


def test_a_slot_used_again_remembers_nothing_of_who_had_it(kit: Any, index: ExactIndex) -> None:
    index.apply("a", kit.batch(kit.stored(PROMPT)))
    request = kit.request(PROMPT)
    index.routed(request, "a", 0.0)
    index.forget("a")
    index.apply("b", kit.batch(kit.stored("unrelated...")))
    another = kit.request(PROMPT)
    index.routed(another, "b", 0.0)
    index.finished(request, "a", 1.0, succeeded=True)
    assert tokens(kit, index, LONGER, "a", "b") == [0, 32]
    index.finished(another, "b", 1.0, succeeded=True)
    assert tokens(kit, index, LONGER, "b") == [0]


Act = st.tuples(
    st.sampled_from(["store", "store", "remove", "clear", "forget"]), st.sampled_from("xyz"), st.integers(0, 1),
    st.integers(0, 2), st.text("ab", min_size=4, max_size=20), st.integers(0, 4),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(Act, max_size=30), st.text("ab", max_size=24))
def test_the_index_agrees_with_a_naive_one(kit: Any, acts: list[Any], asked: str) -> None:
    """The naive one keeps, per engine and rank, a list of (tier, prompt up to a block's end) with copies."""
    index, naive = kit.exact(host_memory_credit=0.5, storage_credit=0.25), {}
    for act, engine, rank, tier, prompt, at in acts:
        held = naive.setdefault((engine, rank), [])
        if act == "store":
            index.apply(engine, kit.batch(kit.stored(prompt, tier=tier), rank=rank))
            held += [(tier, name) for name in kit.names(prompt)]
        elif act == "remove" and at < len(kit.names(prompt)):
            name = kit.names(prompt)[at]
            index.apply(engine, kit.batch(Removed([name], tier), rank=rank))
            if (tier, name) in held:
                held.remove((tier, name))
        elif act == "clear":
            index.apply(engine, kit.batch(Cleared(), rank=rank))
            held.clear()
        elif act == "forget":
            index.forget(engine)
            naive = {key: value for key, value in naive.items() if key[0] != engine}
    expected = [max((naive_tokens(kit, naive[key], asked) for key in naive if key[0] == e), default=0.0) for e in "xyz"]
    assert tokens(kit, index, asked, *"xyz") == expected


def naive_tokens(kit: Any, held: list[tuple[int, bytes]], asked: str) -> float:
    names, worth, reached = kit.names(asked[: max(len(asked) - 1, 0)]), 0.0, DEVICE
    for name in names:
        tiers = [tier for tier, each in held if each == name]
        if not tiers:
            break
        reached = max(reached, min(tiers))
        worth += 4 * (1.0, 0.5, 0.25)[reached]
    return worth
