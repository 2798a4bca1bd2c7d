"""What is remembered of a stream, what an engine is asked for and what is taken out again, byte by byte."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hekla.routing.body import Body
from hekla.routing.continuation.asking import token_id_changes, without_ids
from hekla.routing.continuation.failure import failure_at
from hekla.routing.continuation.record import FOLD_BYTES, Record
from hekla.routing.continuation.settings import ContinuationSettings
from hekla.routing.continuation.stopping import StopWatch
from hekla.routing.sse import data_of, split_events


def event(compact: bool = True, **chunk: Any) -> bytes:
    separators = (",", ":") if compact else None
    return b"data: " + json.dumps({"id": "i", "model": "m", **chunk}, separators=separators).encode() + b"\n\n"


def word(text: str, *ids: int, finish: str | None = None, compact: bool = True) -> bytes:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish, "token_ids": list(ids)}
    return event(compact, choices=[choice])


def test_a_long_stream_is_folded_on_the_way_and_reads_the_same() -> None:
    record, count = Record(2**22), 3000
    for number in range(count):
        record.add(word(f" w{number}", number, number + 1))
    assert count * len(word(" w1", 1, 2)) > 3 * FOLD_BYTES
    record.add(word("", finish="length") + b"data: [DONE]\n\n")
    choice = record.read().choices[0]
    assert choice.shown == "".join(f" w{number}" for number in range(count))
    assert list(choice.tokens[:6]) == [0, 1, 1, 2, 2, 3]
    assert (len(choice.tokens), choice.shown_tokens, choice.finish) == (2 * count, 2 * count, "length")
    assert record.is_finished and not record.lost


@pytest.mark.parametrize("ends", [b"\n\n", b"\r\n\r\n"])
def test_comments_named_events_and_other_line_ends_are_read_too(ends: bytes) -> None:
    record = Record(2**20)
    record.add(b": ping" + ends + b"event: x\ndata: " + data_of(word("a", 1)) + ends)
    record.add(word("b", 2) + b": ping\n\n" + word("c", 3))
    assert record.read().choices[0].shown == "abc"


def test_a_stream_above_the_bound_is_forgotten_and_says_so() -> None:
    record = Record(100)
    for _ in range(30):
        record.add(word("0123456789", 1))
    assert record.read().choices == {}
    assert "continuation.record_bytes_max" in record.lost


def test_what_is_no_chunk_makes_the_record_useless_and_not_the_stream() -> None:
    record = Record(2**20)
    record.add(b'data: {"choices": 3}\n\n')
    assert record.read().choices == {}
    assert "could not be read" in record.lost


@pytest.mark.parametrize("compact", [True, False])
def test_ids_are_taken_out_and_nothing_else(compact: bool) -> None:
    tricky = 'he said "token_ids":[1,2] and ]'
    chunk = word(tricky, 5, 6, compact=compact) + event(compact, choices=[], prompt_token_ids=[1, 2, 3])
    told = [json.loads(data_of(one)) for one in split_events(without_ids(chunk))]
    assert told[0]["choices"][0]["token_ids"] is None
    assert told[0]["choices"][0]["text"] == tricky
    assert told[1]["prompt_token_ids"] is None


def test_an_event_that_only_carried_ids_goes() -> None:
    hollow = event(choices=[{"index": 0, "delta": {}, "logprobs": None, "finish_reason": None, "token_ids": [1]}])
    last = event(choices=[{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop", "token_ids": [1]}])
    assert without_ids(hollow + last) == last.replace(b"[1]", b"null")


@pytest.mark.parametrize(
    ("path", "body", "engine", "asks"),
    [
        ("/v1/completions", {"stream": True}, "vLLM", True),
        ("/v1/chat/completions", {"stream": True}, "vLLM", True),
        ("/v1/completions", {"stream": False}, "vLLM", False),
        ("/v1/completions", {"stream": True}, "SGLang", False),
        ("/v1/completions", {"stream": True, "echo": True}, "vLLM", False),
        ("/v1/completions", {"stream": True, "return_token_ids": False}, "vLLM", True),
        ("/v1/completions", {"stream": True, "return_token_ids": True}, "vLLM", False),
        ("/v1/messages", {"stream": True}, "vLLM", False),
    ],
)
def test_engines_that_can_are_asked_for_ids(path: str, body: dict[str, Any], engine: str, asks: bool) -> None:
    found = token_id_changes(path, Body.parse(json.dumps(body).encode()), engine, 100, ContinuationSettings())
    assert found == ({"return_token_ids": True} if asks else {})
    assert token_id_changes(path, Body.parse(b'{"stream":true}'), engine, 10**6, ContinuationSettings()) == {}


@pytest.mark.parametrize(
    ("failure", "is_one"),
    [
        ({"error": {"message": "EngineDeadError", "code": 500}}, True),
        ({"error": {"message": "no such token", "code": 400}}, False),
        ({"choices": [{"index": 0, "text": "", "finish_reason": "abort"}]}, True),
        ({"choices": [{"index": 0, "text": '{"error" "abort"', "finish_reason": None}]}, False),
    ],
)
def test_an_engine_that_says_it_failed_is_believed(failure: dict[str, Any], is_one: bool) -> None:
    chunk = word("a", 1) + b"data: " + json.dumps(failure).encode() + b"\n\ndata: [DONE]\n\n"
    before, reason = failure_at(chunk)
    assert bool(reason) is is_one
    assert before == (word("a", 1) if is_one else chunk)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("seam", range(12))
@pytest.mark.parametrize("keep", [False, True])
def test_a_stop_string_ends_the_text_at_the_same_place_wherever_the_seam_is(size: int, seam: int, keep: bool) -> None:
    text, stops = "one two STOP three", ("STOP", "never ever")
    watch = StopWatch(stops, text[:seam], max(0, seam - 9), keep=keep, min_tokens=0, tokens=seam)
    shown = text[: max(0, seam - 9)]
    for at in range(seam, len(text), size):
        shown += watch.feed(text[at : at + size], 1)
        if watch.found:
            break
    assert watch.found == "STOP"
    assert shown == ("one two STOP" if keep else "one two ")


def test_no_stop_string_counts_before_min_tokens() -> None:
    watch = StopWatch(("x",), "", 0, keep=False, min_tokens=3, tokens=0)
    assert [watch.feed("x", 1) for _ in range(3)] == ["x", "x", "x"]
    assert watch.found is None
    watch.feed("x", 1)
    assert watch.found == "x"
