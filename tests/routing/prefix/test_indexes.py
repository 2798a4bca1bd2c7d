"""What every kind of prefix knowledge must do, whatever it is made of."""

from __future__ import annotations

from typing import Any

PROMPT = "abcdefghijklmnopqrstuvwxyz012345"


def test_nothing_is_known_of_engines_never_heard_of(filled: Any) -> None:
    assert filled.matched(PROMPT, ["a", "b"]) == [0, 0]


def test_a_prompt_is_found_where_it_was_and_nowhere_else_s13(filled: Any) -> None:
    filled.holds("a", PROMPT)
    a, b = filled.matched(PROMPT, ["a", "b"])
    assert a >= 24
    assert b == 0


def test_the_last_token_is_always_computed(filled: Any) -> None:
    filled.holds("a", PROMPT)
    assert filled.matched(PROMPT, ["a"])[0] < len(PROMPT)


def test_a_common_beginning_counts_up_to_where_prompts_part(filled: Any) -> None:
    filled.holds("a", PROMPT)
    assert filled.matched(PROMPT[:16] + "something else entirely", ["a"]) == [16]


def test_a_common_end_counts_for_nothing(filled: Any) -> None:
    filled.holds("a", PROMPT)
    assert filled.matched("somewhat" + PROMPT[8:], ["a"]) == [0]


def test_answers_keep_the_candidates_order(filled: Any) -> None:
    filled.holds("a", PROMPT[:8])
    filled.holds("b", PROMPT[:16])
    filled.holds("c", PROMPT[:24])
    assert filled.matched(PROMPT + "!", ["c", "x", "a", "b"]) == [24, 0, 8, 16]


def test_a_request_under_way_counts_from_its_choice(filled: Any, lab: Any) -> None:
    filled.holds("a", "other stuff")
    filled.holds("b", "other stuff")
    request = lab.request(PROMPT)
    filled.index.routed(request, "a", 0.0)
    assert filled.matched(PROMPT + "tail tail", ["a", "b"]) == [32, 0]


def test_a_request_that_fails_leaves_nothing(filled: Any, lab: Any) -> None:
    filled.holds("a", "other stuff")
    request, another = lab.request(PROMPT), lab.request(PROMPT)
    filled.index.routed(request, "a", 0.0)
    filled.index.routed(another, "a", 0.0)
    filled.index.finished(request, "a", 1.0, succeeded=False)
    assert filled.matched(PROMPT + "tail tail", ["a"]) == [32]
    filled.index.finished(another, "a", 1.0, succeeded=False)
    assert filled.matched(PROMPT + "tail tail", ["a"]) == [0]


def test_an_engine_that_is_gone_is_forgotten_with_all_it_held(filled: Any, lab: Any) -> None:
    filled.holds("a", PROMPT)
    request = lab.request(PROMPT + PROMPT)
    filled.index.routed(request, "a", 0.0)
    filled.index.forget("a")
    assert filled.matched(PROMPT, ["a"]) == [0]
    filled.index.finished(request, "a", 1.0, succeeded=False)
    filled.holds("b", PROMPT[:16])
    assert filled.matched(PROMPT, ["a", "b"]) == [0, 16]


def test_forgetting_and_ending_what_is_not_known_does_nothing(filled: Any, lab: Any) -> None:
    filled.index.forget("never seen")
    filled.index.finished(lab.request(PROMPT), "never seen", 1.0, succeeded=False)
    assert filled.matched(PROMPT, ["never seen"]) == [0]


def test_an_empty_and_a_short_prompt_match_nothing(filled: Any) -> None:
    filled.holds("a", PROMPT)
    assert filled.matched("", ["a"]) == [0]
    assert filled.matched("ab", ["a"]) == [0]


def test_an_adapters_blocks_are_its_own(filled: Any, lab: Any) -> None:
    filled.holds("a", PROMPT)
    adapted = lab.request(PROMPT, model="poet", is_adapter=True)
    assert list(filled.index.matched_tokens(adapted, lab.candidates("a"))) == [0]


def test_a_cache_salt_keeps_tenants_apart(filled: Any, lab: Any) -> None:
    filled.holds("a", PROMPT)
    salted = lab.request(PROMPT)
    salted.memo["prefix.cache_salt"] = "tenant"
    assert list(filled.index.matched_tokens(salted, lab.candidates("a"))) == [0]


def test_more_than_a_hundred_engines_each_get_their_own_answer(filled: Any) -> None:
    engines = [f"e{i}" for i in range(130)]
    for i, engine in enumerate(engines):
        filled.holds(engine, PROMPT[: 8 * (i % 4)])
    assert filled.matched(PROMPT, engines) == [8 * (i % 4) for i in range(130)]


def test_a_burst_at_an_engine_that_has_told_of_no_block_yet_is_credited_by_its_text(fill: Any, lab: Any) -> None:
    filled = fill("combined")
    for engine in "ab":
        filled.exact.begin(engine, is_complete=True)
    filled.index.routed(lab.request("a prompt of the burst"), "a", 0.0)
    on_a, on_b = filled.matched("a prompt of the burst", "ab")
    assert on_a > 0 == on_b
