from __future__ import annotations

from random import Random

import pytest

from hekla.simulation.engine.cache import KvCache


def test_blank_blocks_are_handed_out_before_cached_ones_are_evicted() -> None:
    cache = KvCache(4)
    assert cache.allocate(2)
    assert cache.name(1) and cache.name(2)
    cache.release([1, 2])
    assert cache.allocate(2)
    assert 1 in cache and 2 in cache
    assert cache.evictions == 0


def test_the_tail_of_a_released_prefix_is_evicted_before_its_head() -> None:
    cache = KvCache(3)
    cache.allocate(3)
    for name in (1, 2, 3):
        cache.name(name)
    cache.release([1, 2, 3])
    cache.allocate(1)
    assert cache.match([1, 2, 3], 3) == 2


def test_the_least_recently_released_goes_first() -> None:
    cache = KvCache(2)
    cache.allocate(2)
    cache.name(1), cache.name(2)
    cache.release([2])
    cache.release([1])
    cache.allocate(1)
    assert 1 in cache and 2 not in cache
    assert cache.changes == [1, 2, ~2]


def test_a_shared_block_is_kept_until_its_last_user_has_gone() -> None:
    cache = KvCache(2)
    cache.allocate(1)
    cache.name(7)
    cache.take([7])
    cache.release([7])
    assert cache.used == 1
    cache.release([7])
    assert cache.used == 0 and 7 in cache


def test_allocation_that_does_not_fit_changes_nothing() -> None:
    cache = KvCache(2)
    cache.allocate(1)
    assert not cache.allocate(2)
    assert cache.free == 1


def test_generated_text_displaces_prefixes_in_its_turn() -> None:
    cache = KvCache(4)
    cache.allocate(4)
    cache.name(1)
    cache.release([1], run=3)
    cache.allocate(3)
    assert 1 in cache, "the run was released before the prefix's head"
    cache.allocate(1)
    assert 1 not in cache
    cache.check()


def test_what_is_evicted_is_found_in_the_tier_below_until_that_is_full() -> None:
    cache = KvCache(2, spill_blocks=1)
    cache.allocate(2)
    cache.name(1), cache.name(2)
    cache.release([1, 2])
    cache.allocate(1)
    assert cache.match_spilled([1, 2], 1, 2) == 1
    cache.allocate(1)
    assert cache.match_spilled([2], 0, 1) == 0
    assert cache.match_spilled([1], 0, 1) == 1


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="blocks >= 1"):
        KvCache(0)


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_done_the_counts_agree(seed: int) -> None:
    dice, cache = Random(seed), KvCache(50, spill_blocks=5)
    held: list[tuple[list[int], int, int]] = []
    for _ in range(400):
        if held and (dice.random() < 0.45 or cache.free < 8):
            names, anonymous, run = held.pop(dice.randrange(len(held)))
            cache.release(names, run=run, blank=anonymous - run)
        else:
            chain = [dice.randrange(4) * 100 + i for i in range(dice.randrange(1, 6))]
            found = cache.match(chain, len(chain))
            cache.take(chain[:found])
            fresh = len(chain) - found + dice.randrange(3)
            assert cache.allocate(fresh)
            named = [name for name in chain[found:] if cache.name(name)]
            left = fresh - len(named)
            held.append((chain[:found] + named, left, dice.randint(0, left)))
        cache.check()
