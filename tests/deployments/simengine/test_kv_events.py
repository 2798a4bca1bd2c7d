from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest
import zmq

from hekla.deployments.simengine.blocks import block_hash
from hekla.deployments.simengine.events import AllBlocksCleared, BlockRemoved, BlockStored, EventBatch

Make = Callable[..., Any]
WAIT_MS = 10_000


@pytest.fixture(scope="module")
def server(serve: Make, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("kv")
    config = {
        "enable_kv_cache_events": True,
        "endpoint": f"ipc://{folder}/events",
        "replay_endpoint": f"ipc://{folder}/replay",
        "topic": "kv@engine",
        "buffer_steps": 50,
    }
    return serve("--time-scale", "0", "--kv-events-config", json.dumps(config))


def generate(server: Any, prompt: str) -> None:
    fields = {"model": "sim", "prompt": prompt, "max_tokens": 20, "temperature": 0, "ignore_eos": True}
    assert httpx.post(f"{server.url}/v1/completions", json=fields).status_code == 200


def replay(server: Any, first: int) -> list[tuple[bytes, int, bytes]]:
    source = httpx.get(f"{server.url}/kv_event_sources").json()["0"]
    batches: list[tuple[bytes, int, bytes]] = []
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.linger = 0
        sock.rcvtimeo = WAIT_MS
        sock.connect(source["replay_endpoint"])
        sock.send_multipart((b"", first.to_bytes(8, "big")))
        while True:
            empty, topic, sequence, payload = sock.recv_multipart()
            assert empty == b""
            number = int.from_bytes(sequence, "big", signed=True)
            if number == -1:
                return batches
            batches.append((topic, number, payload))


def test_stored_blocks_carry_their_tokens_and_their_chain(server: Any) -> None:
    generate(server, "one two three four five " * 20)
    batches = replay(server, 0)
    assert [number for _, number, _ in batches] == list(range(len(batches)))
    assert {topic for topic, _, _ in batches} == {b"kv@engine"}
    parent: int | None = None
    for _, _, payload in batches:
        batch = msgspec.msgpack.decode(payload, type=EventBatch)
        for event in batch.events:
            assert isinstance(event, BlockStored)
            assert event.parent_block_hash == parent
            for index, value in enumerate(event.block_hashes):
                tokens = event.token_ids[index * 16 : index * 16 + 16]
                assert value == block_hash(parent, tokens)
                parent = value
    assert parent is not None


def test_a_subscriber_sees_what_a_replay_gives(server: Any) -> None:
    source = httpx.get(f"{server.url}/kv_event_sources").json()["0"]
    with zmq.Context() as context, context.socket(zmq.SUB) as sock:
        sock.linger = 0
        sock.rcvtimeo = WAIT_MS
        sock.subscribe(b"kv@")
        monitor = sock.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        sock.connect(source["endpoint"])
        assert monitor.poll(WAIT_MS)
        frames: list[bytes] = []
        sock.rcvtimeo = 200
        for attempt in range(50):  # the subscription reaches the publisher a moment after the handshake
            generate(server, f"attempt {attempt} " + "other words altogether " * 10)
            try:
                frames = sock.recv_multipart()
                break
            except zmq.Again:
                continue
        assert frames
        topic, sequence, payload = frames
        assert (topic, int.from_bytes(sequence, "big"), payload) in replay(server, 0)
        sock.disable_monitor()


def test_a_replay_starts_where_it_is_asked_to(server: Any) -> None:
    generate(server, "yet another beginning " * 10)
    whole = replay(server, 0)
    assert replay(server, whole[-1][1]) == whole[-1:]
    assert replay(server, whole[-1][1] + 1) == []


def test_a_cleared_cache_is_announced(server: Any) -> None:
    assert httpx.post(f"{server.url}/reset_prefix_cache").status_code == 200
    last = msgspec.msgpack.decode(replay(server, 0)[-1][2], type=EventBatch)
    assert isinstance(last.events[-1], AllBlocksCleared)


def test_vllms_own_classes_read_our_events(vllm_messages: Any) -> None:
    stored = BlockStored([2**64 - 1], None, list(range(16)), 16, None, "GPU", "poet", extra_keys=[["poet"]])
    batch = EventBatch(1.5, [stored, BlockRemoved([7], "GPU"), AllBlocksCleared()], 0)
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(batch), type=vllm_messages.KVEventBatch)
    assert [type(event).__name__ for event in read.events] == ["BlockStored", "BlockRemoved", "AllBlocksCleared"]
    assert read.events[0].block_hashes == [2**64 - 1]
    assert read.events[0].extra_keys == [("poet",)]


def test_events_on_the_wire_are_maps_with_all_the_fields_vllm_requires() -> None:
    stored = BlockStored([1], None, list(range(16)), 16, None, "GPU", None)
    encoded = msgspec.msgpack.decode(msgspec.msgpack.encode(EventBatch(1.5, [stored, BlockRemoved([1], "GPU")], 0)))
    assert encoded == [
        1.5,
        [
            {
                "type": "BlockStored",
                "block_hashes": [1],
                "parent_block_hash": None,
                "token_ids": list(range(16)),
                "block_size": 16,
                "lora_id": None,
                "medium": "GPU",
                "lora_name": None,
            },
            {"type": "BlockRemoved", "block_hashes": [1], "medium": "GPU"},
        ],
        0,
    ]
