from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hekla.routing.body import Body
from hekla.routing.prefix.approximate import ApproximateIndex
from hekla.routing.prefix.hashing import BlockHasher
from hekla.routing.prefix.settings import ApproximateSettings
from hekla.routing.view import LazyView


def sent(index: Any, request: Any, engine: str, *, succeeded: bool = True) -> None:
    index.routed(request, engine, 0.0)
    index.finished(request, engine, 1.0, succeeded=succeeded)


def test_a_prompt_of_8192_bytes_has_128_blocks_at_the_peers_size_s12(lab: Any) -> None:
    """Rows S12 and §3.5: args blockSizeToHash and maxBlocksToMatch; a partial tail is no block here: it can't match."""
    for size, blocks in ((8192, 128), (192, 3), (320, 5), (1600, 25), (100, 1), (20_000, 128)):
        index = lab.approximate(block_bytes=64, blocks_max=128)
        assert len(index.blocks(lab.request("x" * size))) == blocks


def test_a_match_tells_blocks_and_their_total_for_a_ratio_s16(lab: Any) -> None:
    """S16: one full hit and one miss are the ratios 1 and 0."""
    index = lab.approximate()
    sent(index, lab.request("abcdefgh" * 4), "a")
    full = index.match(lab.request("abcdefgh" * 4), lab.candidates("a", "b"))
    assert (full.blocks, full.blocks_total) == ([4, 0], 4)


def test_every_candidate_is_in_the_answer_s13(lab: Any) -> None:
    index = lab.approximate()
    sent(index, lab.request("abcdefgh" * 4), "pod1")
    tokens = index.match(lab.request("abcdefgh" * 4), lab.candidates("pod1", "pod2", "pod3")).tokens
    assert tokens[0] > 0
    assert tokens[1:] == [0, 0]


def test_two_engines_with_the_same_prompt_tie_s15(lab: Any) -> None:
    """S15: which of them topKMatches keeps is the scorer's choice; the index says that they are equal."""
    index = lab.approximate()
    for engine in ("a", "b"):
        sent(index, lab.request("abcdefgh" * 4), engine)
    assert len(set(index.match(lab.request("abcdefgh" * 4), lab.candidates("a", "b")).blocks)) == 1


def test_above_its_limit_an_engine_forgets_what_is_least_recent(lab: Any) -> None:
    index = lab.approximate(entries_max=4)
    sent(index, lab.request("a" * 16), "e")
    sent(index, lab.request("b" * 16), "e")
    sent(index, lab.request("a" * 16), "e")
    sent(index, lab.request("c" * 16), "e")
    blocks = [index.match(lab.request(letter * 16), lab.candidates("e")).blocks[0] for letter in "abc"]
    assert blocks == [2, 0, 2]
    assert index.evicted == 2
    assert index.entries_of("e") == 4
    index.check()


def test_of_one_prompt_the_tail_is_forgotten_first_as_engines_do(lab: Any) -> None:
    index = lab.approximate(entries_max=3)
    prompt = "".join(letter * 8 for letter in "abcde")
    sent(index, lab.request(prompt), "e")
    assert index.match(lab.request(prompt), lab.candidates("e")).blocks == [3]


def test_an_engines_known_capacity_bounds_what_is_remembered_of_it(lab: Any) -> None:
    index = lab.approximate()
    index.set_capacity("small", 6)  # tokens: 24 bytes, three blocks of eight
    for engine in ("small", "other"):
        sent(index, lab.request("".join(letter * 8 for letter in "abcdefgh")), engine)
    assert (index.entries_of("small"), index.entries_of("other")) == (3, 8)
    index.set_capacity("other", 4)
    assert index.entries_of("other") == 2
    index.check()


def test_a_failed_request_does_not_take_away_what_an_answered_one_brought(lab: Any) -> None:
    index = lab.approximate()
    sent(index, lab.request("a" * 16), "e")
    sent(index, lab.request("a" * 16 + "b" * 16), "e", succeeded=False)
    assert index.match(lab.request("a" * 16 + "b" * 16), lab.candidates("e")).blocks == [2]


def test_a_request_answered_without_having_been_announced_counts(lab: Any) -> None:
    index = lab.approximate()
    index.finished(lab.request("a" * 16), "e", 1.0, succeeded=True)
    assert index.match(lab.request("a" * 16), lab.candidates("e")).blocks == [2]


def test_peers_learn_of_routes_from_records(lab: Any) -> None:
    here, there = lab.approximate(), lab.approximate()
    sent(here, lab.request("a" * 16), "e")
    sent(here, lab.request("b" * 24), "gone")
    sent(here, lab.request("c" * 24), "e", succeeded=False)
    records = here.export(since=0)
    assert [record.engine for record in records] == ["e", "gone"]
    there.merge(records, known=["e"])
    assert there.match(lab.request("a" * 16), lab.candidates("e", "gone")).blocks == [2, 0]
    assert here.export(since=records[-1].sequence) == []
    assert there.export() == []
    there.check()


def test_records_are_bounded_and_come_in_portions(lab: Any) -> None:
    index = lab.approximate(records_max=3)
    for i in range(5):
        sent(index, lab.request(f"{i}" * 16), "e")
    assert [record.sequence for record in index.export()] == [3, 4, 5]
    assert [record.sequence for record in index.export(since=1, limit=2)] == [3, 4]


def test_a_malformed_record_is_passed_over(lab: Any) -> None:
    here, there = lab.approximate(), lab.approximate()
    sent(here, lab.request("a" * 16), "e")
    there.merge([here.export()[0]._replace(blocks=b"123")], known=["e"])
    assert there.entries == 0


def test_replicas_with_different_secrets_do_not_share(lab: Any) -> None:
    settings = ApproximateSettings(block_bytes=8)
    here, there = (ApproximateIndex(settings, BlockHasher(seed)) for seed in ("one", "two"))
    sent(here, lab.request("a" * 16), "e")
    there.merge(here.export(), known=["e"])
    assert there.match(lab.request("a" * 16), lab.candidates("e")).blocks == [0]


def test_text_beyond_the_largest_prompt_is_not_looked_at(lab: Any) -> None:
    index = lab.approximate(blocks_max=2)
    sent(index, lab.request("a" * 80), "e")
    assert index.match(lab.request("a" * 80), lab.candidates("e")).blocks == [2]


def test_any_text_will_do(lab: Any) -> None:
    index = lab.approximate()
    for text in ("é" * 40, "\ud800 lone", "🙂" * 9, "\0\0\0\0\0\0\0\0"):
        raw = json.dumps({"prompt": text}).encode()
        view = LazyView(Body(raw, {}), "/v1/completions", [], model="m", chance=lambda: 0.5)
        view.__dict__["prompt_text"] = text
        view.__dict__["estimated_tokens"] = 10
        sent(index, view, "e")
        assert index.match(view, lab.candidates("e")).blocks[0] == len(text.encode("utf-8", "surrogatepass")) // 8


Act = st.tuples(
    st.sampled_from(["route", "succeed", "fail", "forget"]),
    st.sampled_from("xyz"),
    st.integers(0, 3),
    st.integers(0, 6),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(Act, max_size=40), st.integers(2, 12))
def test_whatever_happens_bits_and_entries_agree_and_stay_bounded(lab: Any, acts: list[Any], room: int) -> None:
    index = lab.approximate(entries_max=room)
    flying: dict[Any, Any] = {}
    for act, engine, family, length in acts:
        key = (engine, family, length)
        if act == "route":
            flying.setdefault(key, []).append(lab.request(f"{family}" * (8 * length)))
            index.routed(flying[key][-1], engine, 0.0)
        elif act == "forget":
            index.forget(engine)
        elif flying.get(key):
            index.finished(flying[key].pop(), engine, 0.0, succeeded=act == "succeed")
        index.check()
        assert index.entries_of(engine) <= room
