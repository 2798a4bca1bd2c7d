from __future__ import annotations

import random
from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hekla.routing.prefix.hashing import MASK, BlockHasher, token_array

TOKENS = st.lists(st.integers(0, 2**32 - 1), max_size=80)


@given(TOKENS, st.integers(1, 9))
def test_a_chain_made_at_once_equals_one_made_block_by_block(tokens: list[int], size: int) -> None:
    hasher = BlockHasher("s")
    digests = hasher.digests(token_array(tokens), size)
    chained = hasher.chain(7, digests).tolist()
    at, slow = 7, []
    for digest in digests.tolist():
        at = (at * hasher.multiplier + digest) & MASK
        slow.append(at)
    assert chained == slow
    assert len(chained) == len(tokens) // size


@given(TOKENS, TOKENS, st.integers(1, 5))
def test_hashes_are_equal_exactly_as_far_as_the_blocks_are(one: list[int], two: list[int], size: int) -> None:
    hasher = BlockHasher("s")
    chains = [hasher.chain(1, hasher.digests(token_array(tokens), size)).tolist() for tokens in (one, two)]
    for i, (left, right) in enumerate(zip(*chains, strict=False)):
        assert (left == right) is (one[: (i + 1) * size] == two[: (i + 1) * size])


def test_a_chain_goes_on_from_any_of_its_blocks() -> None:
    hasher = BlockHasher("s")
    digests = hasher.digests(token_array(range(1000)), 10)
    whole = hasher.chain(3, digests)
    assert hasher.chain(int(whole[40]), digests[41:]).tolist() == whole[41:].tolist()


def test_a_chain_longer_than_any_before_is_right_too() -> None:
    hasher = BlockHasher("s")
    digests = hasher.digests(token_array(range(3000)), 1)
    at = 5
    for digest in digests.tolist():
        at = (at * hasher.multiplier + digest) & MASK
    assert int(hasher.chain(5, digests)[-1]) == at


def test_another_seed_gives_other_hashes() -> None:
    chains = [BlockHasher(s).chain(0, BlockHasher(s).digests(token_array([1, 2]), 2)).tolist() for s in "ab"]
    assert chains[0] != chains[1]


def test_blocks_that_differ_in_one_token_or_two_swapped_ones_do_not_collide() -> None:
    hasher, chance, seen = BlockHasher("s"), random.Random(1), set()
    base = [chance.randrange(50_000) for _ in range(16)]
    blocks = [[*base[:i], other, *base[i + 1 :]] for i in range(16) for other in range(2000)]
    blocks += [
        [*base[:i], base[j], *base[i + 1 : j], base[i], *base[j + 1 :]] for i in range(16) for j in range(i + 1, 16)
    ]
    distinct = {tuple(block) for block in blocks}
    seen.update(hasher.digests(token_array([token for block in distinct for token in block]), 16).tolist())
    assert len(seen) == len(distinct)


def test_digests_fill_all_64_bits() -> None:
    digests = BlockHasher("s").digests(token_array(range(16 * 4000)), 16)
    ones = [np.count_nonzero(digests >> np.uint64(bit) & np.uint64(1)) for bit in range(64)]
    assert min(ones) > 1800
    assert max(ones) < 2200


def test_extra_keys_make_another_block_and_a_list_means_what_a_tuple_does() -> None:
    hasher = BlockHasher("s")
    assert hasher.keyed(1, [("image", 3)]) == hasher.keyed(1, [["image", 3]])
    assert len({hasher.keyed(1, keys) for keys in ([], ["a"], ["b"], ["a", "b"], ["ab"])}) == 5
    assert hasher.root("a", "b") != hasher.root("ab")


@given(st.text(alphabet=st.characters(), max_size=200))
def test_any_text_can_be_hashed(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    assert len(BlockHasher("s").text_digests(raw, 16)) == len(raw) // 16


@pytest.mark.parametrize("wrong", [[-1], [2**32], ["a"], [1.5], [None]])
def test_what_is_no_token_id_is_refused(wrong: list[object]) -> None:
    with pytest.raises((OverflowError, TypeError)):
        token_array(wrong)  # type: ignore[arg-type]


def test_a_packed_array_is_used_as_it_is() -> None:
    packed = array("I", [1, 2, 3])
    assert np.shares_memory(token_array(packed), np.frombuffer(packed, np.uint32))
