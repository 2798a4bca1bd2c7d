"""Answers and streams from one wire format into the other, however their bytes are cut."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hekla.routing.sse import data_of, split_events
from hekla.routing.translation.answers import chat_completion, message
from hekla.routing.translation.chat_stream import MessageEvents
from hekla.routing.translation.endings import FINISH_REASONS, STOP_REASONS
from hekla.routing.translation.errors import anthropic_error, openai_error, openai_status
from hekla.routing.translation.events import StreamTranslator, anthropic_event, openai_event
from hekla.routing.translation.messages_stream import ChatChunks
from hekla.routing.translation.problems import AnswerUntranslatable

Json = dict[str, Any]
USAGE = {"input_tokens": 3, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2, "output_tokens": 7}
OPENAI_USAGE = {
    "prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 5, "cache_creation_tokens": 2},
}  # fmt: skip


def anthropic_answer(*blocks: Json, **fields: Any) -> Json:
    base = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn"}
    return {**base, "stop_sequence": None, "content": list(blocks), "usage": USAGE, **fields}


def openai_answer(said: Json, reason: str = "stop", **choice: Any) -> Json:
    one = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": reason, **choice}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt",
        "choices": [one],
        "usage": OPENAI_USAGE,
    }


def test_a_message_becomes_a_completion() -> None:
    made = chat_completion(
        anthropic_answer(
            {"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "a"},
            {"type": "text", "text": "b"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}},
            stop_reason="tool_use",
        ),
        created_s=5,
    )  # fmt: skip
    (choice,) = made["choices"]
    assert choice["message"]["content"] == "ab"
    assert choice["message"]["reasoning_content"] == "hm"
    function = {"name": "f", "arguments": '{"x": 1}'}
    assert choice["message"]["tool_calls"] == [{"id": "t", "type": "function", "function": function}]
    assert choice["finish_reason"] == "tool_calls"
    assert (made["id"], made["created"], made["model"], made["usage"]) == ("msg_1", 5, "claude", OPENAI_USAGE)


def test_a_completion_becomes_a_message() -> None:
    call = {"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    made = message(openai_answer({"content": "a", "tool_calls": [call]}, "tool_calls"))
    tool = {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}}
    assert made["content"] == [{"type": "text", "text": "a"}, tool]
    assert (made["stop_reason"], made["stop_sequence"], made["type"]) == ("tool_use", None, "message")
    assert made["usage"] == USAGE


def test_an_engines_matched_stop_string_is_told() -> None:
    assert message(openai_answer({"content": "a"}, stop_reason="###"))["stop_sequence"] == "###"
    assert message(openai_answer({"content": "a"}, stop_reason=128001))["stop_reason"] == "end_turn"


def test_a_refusal_is_told_as_one() -> None:
    made = message(openai_answer({"content": None, "refusal": "I can't"}))
    assert (made["stop_reason"], made["content"][0]["text"]) == ("refusal", "I can't")
    assert (
        chat_completion(anthropic_answer(stop_reason="refusal"), created_s=0)["choices"][0]["finish_reason"]
        == "content_filter"
    )


@pytest.mark.parametrize(("reason", "expected"), sorted(FINISH_REASONS.items()))
def test_every_stop_reason_has_a_finish_reason(reason: str, expected: str) -> None:
    made = chat_completion(anthropic_answer(stop_reason=reason), created_s=0)
    assert made["choices"][0]["finish_reason"] == expected


@pytest.mark.parametrize(("reason", "expected"), sorted(STOP_REASONS.items()))
def test_every_finish_reason_has_a_stop_reason(reason: str, expected: str) -> None:
    assert message(openai_answer({"content": "a"}, reason))["stop_reason"] == expected


@pytest.mark.parametrize(
    "broken",
    [
        {}, {"choices": []}, {"choices": [{}]},
        openai_answer({"tool_calls": [{"id": "t"}]}),
        openai_answer({"tool_calls": [{"id": "t", "function": {"name": "f", "arguments": "{"}}]}),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_named(broken: Json) -> None:
    with pytest.raises(AnswerUntranslatable):
        message(broken)
    with pytest.raises(AnswerUntranslatable):
        chat_completion({"content": "text"}, created_s=0)


def test_errors_are_told_in_both_formats() -> None:
    theirs = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    told = json.loads(openai_error(json.dumps(theirs).encode(), 529))["error"]
    assert (told["message"], told["type"], openai_status(529)) == ("Overloaded", "overloaded_error", 503)
    ours = {"error": {"message": "slow down", "type": "requests", "param": None, "code": None}}
    told = json.loads(anthropic_error(json.dumps(ours).encode(), 429))
    assert told == {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}
    assert json.loads(openai_error(b"<html>", 500))["error"]["message"] == "<html>"
    assert json.loads(anthropic_error(b"", 500))["error"]["message"] == "the provider answered 500"


def anthropic_stream(stop: str = "tool_use") -> list[bytes]:
    start = anthropic_answer(stop_reason=None, usage={**USAGE, "output_tokens": 1})
    deltas: list[tuple[int, Json]] = [
        (0, {"type": "text_delta", "text": "let "}), (0, {"type": "text_delta", "text": "me \"usage\""}),
        (1, {"type": "input_json_delta", "partial_json": '{"ci'}), (1, {"type": "input_json_delta", "partial_json": 'ty": 1}'}),
    ]  # fmt: skip
    blocks: list[Json] = [
        {"type": "text", "text": ""}, {"type": "tool_use", "id": "t1", "name": "f", "input": {}},
        {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
    ]  # fmt: skip
    events: list[Json] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": i, "delta": delta} for i, delta in deltas if i == index]
        events.append({"type": "content_block_stop", "index": index})
    ending = {
        "type": "message_delta",
        "delta": {"stop_reason": stop, "stop_sequence": None},
        "usage": {"output_tokens": 7},
    }
    return [anthropic_event(event) for event in [*events, ending, {"type": "message_stop"}]]


def openai_stream() -> list[bytes]:
    def chunk(delta: Json, reason: str | None = None) -> bytes:
        head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt"}
        return openai_event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    def call(number: int, **more: Any) -> Json:
        return {"tool_calls": [{"index": number, **more}]}

    return [
        chunk({"role": "assistant", "content": ""}), chunk({"content": "let "}), chunk({"content": "me"}),
        chunk(call(0, id="t1", type="function", function={"name": "f", "arguments": ""})),
        chunk(call(0, function={"arguments": '{"ci'})), chunk(call(0, function={"arguments": 'ty": 1}'})),
        chunk(call(1, id="t2", type="function", function={"name": "g", "arguments": "{}"})),
        chunk({}, "tool_calls"), openai_event({"id": "c1", "choices": [], "usage": OPENAI_USAGE}), b"data: [DONE]\n\n",
    ]  # fmt: skip


def fed(translator: StreamTranslator, *pieces: bytes) -> bytes:
    return b"".join(translator.feed(piece) for piece in pieces) + translator.finish()


def objects(stream: bytes) -> list[Json]:
    data = [data_of(event) for event in split_events(stream)]
    return [msgspec.json.decode(text) for text in data if text != b"[DONE]"]


def chunks(**options: Any) -> ChatChunks:
    return ChatChunks(**{"created_s": 5, "wants_usage": True, "event_bytes_max": 10_000, **options})


def test_a_stream_of_messages_becomes_chunks_with_streamed_tool_calls() -> None:
    out = fed(chunks(), *anthropic_stream())
    assert out.endswith(b"data: [DONE]\n\n")
    *told, last = objects(out)
    assert (last["choices"], last["usage"]) == ([], OPENAI_USAGE)
    deltas = [one["choices"][0]["delta"] for one in told]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content") or "" for delta in deltas) == 'let me "usage"'
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert [(call["index"], call["id"], call["function"]["name"]) for call in calls if "id" in call] == [
        (0, "t1", "f"), (1, "t2", "g"),
    ]  # fmt: skip
    said = {n: "".join(call["function"]["arguments"] for call in calls if call["index"] == n) for n in (0, 1)}
    assert said == {0: '{"city": 1}', 1: "{}"}, "a call that says nothing of its arguments has none"
    assert [one["choices"][0]["finish_reason"] for one in told][-1] == "tool_calls"
    assert {(one["id"], one["model"], one["created"]) for one in told} == {("msg_1", "claude", 5)}
    assert b'"usage":{' not in fed(chunks(wants_usage=False), *anthropic_stream())


def test_a_stream_of_chunks_becomes_blocks_in_their_order() -> None:
    told = objects(fed(MessageEvents(event_bytes_max=10_000), *openai_stream()))
    assert [(event["type"], event.get("index")) for event in told] == [
        ("message_start", None),
        ("content_block_start", 0), ("content_block_delta", 0), ("content_block_delta", 0), ("content_block_stop", 0),
        ("content_block_start", 1), ("content_block_delta", 1), ("content_block_delta", 1), ("content_block_stop", 1),
        ("content_block_start", 2), ("content_block_delta", 2), ("content_block_stop", 2),
        ("message_delta", None), ("message_stop", None),
    ]  # fmt: skip
    assert told[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert told[-2]["usage"] == USAGE


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["messages", "chat"]), st.lists(st.integers(0, 3000), max_size=12))
def test_however_a_stream_is_cut_it_says_the_same(wire: str, cuts: list[int]) -> None:
    whole = b"".join(anthropic_stream() if wire == "messages" else openai_stream())
    points = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    pieces = [whole[a:b] for a, b in itertools.pairwise(points)]

    def make() -> StreamTranslator:
        return chunks() if wire == "messages" else MessageEvents(event_bytes_max=10_000)

    assert fed(make(), *pieces) == fed(make(), whole)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 100))
def test_a_stream_that_stops_early_ends_with_an_error_and_never_as_whole(count: int) -> None:
    for events, make, end in (
        (anthropic_stream()[:-1], chunks, b"[DONE]"),
        (openai_stream()[:-3], lambda: MessageEvents(event_bytes_max=10_000), b"message_stop"),
    ):
        out = fed(make(), *events[: count % (len(events) + 1)])
        assert out.count(b'"error"') >= 1
        assert (end in out) == (end == b"[DONE]"), "OpenAI's clients wait for their end mark, also after an error"


def test_an_error_within_a_stream_ends_it() -> None:
    theirs = anthropic_event({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}})
    out = fed(chunks(), *anthropic_stream()[:5], theirs, *anthropic_stream()[5:])
    assert objects(out)[-1]["error"]["message"] == "busy"
    ours = openai_event({"error": {"message": "lost", "code": "engine_lost"}})
    out = fed(MessageEvents(event_bytes_max=10_000), *openai_stream()[:3], ours, *openai_stream()[3:])
    assert objects(out)[-1] == {"type": "error", "error": {"type": "api_error", "message": "lost"}}


@pytest.mark.parametrize("garbage", [b"data: {\n\n", b"data: 5\n\n", b"data: " + b"x" * 20_000])
def test_what_is_no_event_ends_the_stream_with_an_error(garbage: bytes) -> None:
    for make in (chunks, lambda: MessageEvents(event_bytes_max=10_000)):
        assert b'"error"' in fed(make(), garbage)


def test_a_return_to_an_ended_tool_call_is_an_error_rather_than_a_wrong_answer() -> None:
    def call(number: int) -> bytes:
        delta = {"tool_calls": [{"index": number, "id": "t", "function": {"name": "f", "arguments": "{"}}]}
        return openai_event({"choices": [{"index": 0, "delta": delta}]})

    out = fed(MessageEvents(event_bytes_max=10_000), call(0), call(1), call(0))
    assert "had ended" in objects(out)[-1]["error"]["message"]
