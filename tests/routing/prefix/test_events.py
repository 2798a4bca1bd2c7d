from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hekla.deployments.simengine import events as sim
from hekla.routing.prefix.batch import DEVICE, EVERY_TIER, HOST, STORAGE, Cleared, Removed, Stored
from hekla.routing.prefix.events import MalformedBatch, decode_batch
from hekla.routing.prefix.hashing import token_array

encode = msgspec.msgpack.encode


def decoded(lab: Any, *events: Any, rank: int | None = None) -> list[Any]:
    return list(decode_batch(encode([1.5, list(events), rank]), lab.hasher).events)


def stored_map(**fields: Any) -> dict[str, Any]:
    return {
        "type": "BlockStored", "block_hashes": [11, 12], "parent_block_hash": None, "token_ids": list(range(8)),
        "block_size": 4, "lora_id": None, "medium": "GPU", "lora_name": None, **fields,
    }  # fmt: skip


def test_a_map_and_an_older_array_mean_the_same(lab: Any) -> None:
    digests = lab.hasher.digests(token_array(range(8)), 4).tolist()
    expected = Stored([11, 12], None, digests, 4)
    assert decoded(lab, stored_map()) == [expected]
    for array in (
        ["BlockStored", [11, 12], None, list(range(8)), 4, None, "GPU", None],
        ["BlockStored", [11, 12], None, list(range(8)), 4, None],
        ["BlockStored", [11, 12], None, list(range(8)), 4],
    ):
        assert decoded(lab, array) == [expected]
    assert decoded(lab, ["BlockRemoved", [11]], ["AllBlocksCleared"]) == [Removed([11], EVERY_TIER), Cleared()]


def test_blocks_of_a_batch_get_the_digests_of_their_own_tokens(lab: Any) -> None:
    other = stored_map(block_hashes=[13], parent_block_hash=12, token_ids=list(range(100, 104)))
    bigger = stored_map(block_hashes=[14], token_ids=list(range(8)), block_size=8)
    _, second, third, fourth = decoded(lab, stored_map(), other, bigger, stored_map())
    assert second.parent == 12
    assert second.digests == lab.hasher.digests(token_array(range(100, 104)), 4).tolist()
    assert third.digests == lab.hasher.digests(token_array(range(8)), 8).tolist()
    assert fourth.digests == lab.hasher.digests(token_array(range(8)), 4).tolist()


def test_what_another_replica_of_the_engine_publishes_is_told_apart_by_rank(lab: Any) -> None:
    assert decode_batch(encode([2.5, [], 3]), lab.hasher).rank == 3
    assert decode_batch(encode([2.5, []]), lab.hasher) == (2.5, [], None)


@pytest.mark.parametrize(
    ("medium", "locality", "tier"),
    [
        ("GPU", None, DEVICE),
        ("CPU", None, HOST),
        ("STORAGE", None, STORAGE),
        ("CPU", "REMOTE", STORAGE),
        (None, None, DEVICE),
    ],
)
def test_a_medium_is_a_tier(lab: Any, medium: str | None, locality: str | None, tier: int) -> None:
    (event,) = decoded(lab, stored_map(medium=medium, locality=locality))
    assert event.tier == tier


@pytest.mark.parametrize(
    ("kind", "window", "whole"),
    [
        (None, None, True), ("full_attention", None, True), ("mla_attention", None, True), ("sliding_window", 1024, False),
        ("mamba", None, False), ("chunked_local_attention", None, False), (None, 1024, False), ("unknown", None, False),
    ],
)  # fmt: skip
def test_only_full_attention_tells_whole_prefixes(lab: Any, kind: str | None, window: int | None, whole: bool) -> None:
    (event,) = decoded(lab, stored_map(group_idx=2, kv_cache_spec_kind=kind, kv_cache_spec_sliding_window=window))
    assert (event.is_whole_prefix, event.group) == (whole, 2)


def test_an_adapter_is_in_the_root_not_in_the_blocks(lab: Any) -> None:
    (plain,) = decoded(lab, stored_map())
    (adapted,) = decoded(lab, stored_map(lora_name="poet", extra_keys=[["poet"], ["poet"]]))
    assert (adapted.adapter, adapted.digests) == ("poet", plain.digests)


def test_salts_and_images_make_other_blocks(lab: Any) -> None:
    (plain,) = decoded(lab, stored_map())
    (salted,) = decoded(lab, stored_map(lora_name="poet", extra_keys=[["poet", "tenant"], ["poet"]]))
    assert salted.digests == [lab.hasher.keyed(plain.digests[0], ["tenant"]), plain.digests[1]]
    (image,) = decoded(lab, stored_map(extra_keys=[None, [["mm-1", 3]]]))
    assert image.digests == [plain.digests[0], lab.hasher.keyed(plain.digests[1], [("mm-1", 3)])]


def test_blocks_moved_without_their_tokens_have_no_digests(lab: Any) -> None:
    (event,) = decoded(lab, stored_map(token_ids=[], medium="CPU", block_size=0))
    assert event == Stored([11, 12], None, (), 0, tier=HOST)


def test_an_event_of_a_kind_not_known_here_is_passed_over(lab: Any) -> None:
    assert decoded(lab, {"type": "BlockTeleported", "block_hashes": [1]}, {"type": "AllBlocksCleared"}) == [Cleared()]
    assert decoded(lab, ["BlockTeleported", [1]], ["AllBlocksCleared"]) == [Cleared()]


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\xc1", encode(None), encode([]), encode([1.0]), encode(["x", []]), encode([1.0, [], "rank"]),
        encode([1.0, [{"block_hashes": []}]]), encode([1.0, [3]]),
        encode([1.0, [stored_map(token_ids=[1, 2, 3])]]), encode([1.0, [stored_map(token_ids=[-1] * 8)]]),
        encode([1.0, [stored_map(token_ids=[2**32] * 8)]]), encode([1.0, [stored_map(block_size=0)]]),
        encode([1.0, [stored_map(block_size="4")]]), encode([1.0, [stored_map(block_hashes=["a", "b"])]]),
        encode([1.0, [stored_map(block_hashes=7)]]),
    ],
)  # fmt: skip
def test_what_is_no_batch_is_refused_and_says_why(lab: Any, payload: bytes) -> None:
    with pytest.raises(MalformedBatch, match=r"\w"):
        decode_batch(payload, lab.hasher)


@given(st.binary(max_size=60) | st.recursive(st.none() | st.integers(-9, 9) | st.text("abT"), st.lists).map(encode))
def test_garbage_never_gets_further_than_a_refusal(garbage: bytes) -> None:
    from hekla.routing.prefix.hashing import BlockHasher

    try:
        decode_batch(garbage, BlockHasher("s"))
    except MalformedBatch:
        pass


def test_the_simulated_engines_events_are_understood(lab: Any) -> None:
    events: list[Any] = [
        sim.BlockStored([5, 6], 4, list(range(8)), 4, None, "GPU", "poet", extra_keys=[["poet"], ["poet"]]),
        sim.BlockRemoved([5], "GPU"),
        sim.AllBlocksCleared(),
    ]
    batch = decode_batch(encode(sim.EventBatch(2.0, events, 0)), lab.hasher)
    digests = lab.hasher.digests(token_array(range(8)), 4).tolist()
    assert batch == (2.0, [Stored([5, 6], 4, digests, 4, "poet"), Removed([5], DEVICE), Cleared()], 0)


def test_what_vllms_own_classes_write_is_understood(lab: Any, vllm_messages: Any) -> None:
    vllm = vllm_messages
    stored = vllm.BlockStored(
        block_hashes=[b"\x01" * 32, b"\x02" * 32], parent_block_hash=b"\x00" * 32, token_ids=list(range(8)), block_size=4,
        lora_id=None, medium="GPU", lora_name=None, extra_keys=[("salt",), None], group_idx=0,
        kv_cache_spec_kind="full_attention",
    )  # fmt: skip
    removed = vllm.BlockRemoved(block_hashes=[b"\x01" * 32], medium="CPU", group_idx=0)
    batch = decode_batch(
        encode(vllm.KVEventBatch(ts=3.0, events=[stored, removed, vllm.AllBlocksCleared()])), lab.hasher
    )
    first, second = lab.hasher.digests(token_array(range(8)), 4).tolist()
    assert batch.events == [
        Stored([b"\x01" * 32, b"\x02" * 32], b"\x00" * 32, [lab.hasher.keyed(first, ["salt"]), second], 4, group=0),
        Removed([b"\x01" * 32], HOST, 0),
        Cleared(),
    ]
