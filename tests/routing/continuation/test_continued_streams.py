"""Whatever a request asks for, a stream broken at any event reads as the undisturbed one, or ends with a clear error."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hekla.routing.config import RoutingSettings
from hekla.routing.continuation.settings import ContinuationSettings

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
GREEDY = {"temperature": 0, "max_tokens": 12}
MESSAGES = [{"role": "user", "content": "Tell me of volcanoes."}]
SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {"name": "x", "schema": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}},
}  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": SCHEMA["json_schema"]["schema"]}}]
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "completion": (COMPLETIONS, GREEDY | {"prompt": "Once upon a time"}),
    "chat": (CHAT, GREEDY | {"messages": MESSAGES}),
    "chat, max_completion_tokens": (CHAT, {"temperature": 0, "max_completion_tokens": 9, "messages": MESSAGES}),
    "usage asked for": (CHAT, GREEDY | {"messages": MESSAGES, "stream_options": {"include_usage": True}}),
    "continuous usage": (
        COMPLETIONS,
        GREEDY | {"prompt": "a", "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    ),
    "default length": (COMPLETIONS, {"prompt": "a b c", "temperature": 0}),
    "seeded": (COMPLETIONS, {"prompt": "a b c", "temperature": 0.9, "seed": 7, "max_tokens": 12}),
    "token ids as prompt": (COMPLETIONS, GREEDY | {"prompt": [300, 301, 302, 303]}),
    "token ids wanted": (COMPLETIONS, GREEDY | {"prompt": "a", "return_token_ids": True}),
    "log-probabilities": (COMPLETIONS, GREEDY | {"prompt": "a b", "logprobs": 1}),
    "log-probabilities of a chat": (CHAT, GREEDY | {"messages": MESSAGES, "logprobs": True, "top_logprobs": 1}),
    "echo": (COMPLETIONS, GREEDY | {"prompt": "a b", "echo": True}),
    "two choices, seeded": (CHAT, {"messages": MESSAGES, "n": 2, "seed": 3, "max_tokens": 6}),
    "a batch of prompts": (COMPLETIONS, {"prompt": ["a b", "c d"], "temperature": 0, "max_tokens": 5}),
    "structured output": (CHAT, GREEDY | {"messages": MESSAGES, "response_format": SCHEMA, "max_tokens": 60}),
    "a tool call": (CHAT, GREEDY | {"messages": MESSAGES, "tools": TOOLS, "tool_choice": "required", "max_tokens": 60}),
}


@pytest.mark.parametrize("name", ASKED)
async def test_a_stream_broken_at_any_event_reads_as_the_undisturbed_one(start_pool: Any, name: str) -> None:
    pool = await start_pool()
    path, body = ASKED[name]
    whole = await pool.ask(path, body)
    assert whole.done == 1 and not whole.errors
    for cut in range(1, 15):
        heard = await pool.ask(path, body, cut)
        assert not heard.errors, (cut, heard.errors)
        assert heard == whole, f"cut after {cut} events"


async def test_stop_strings_are_found_wherever_the_stream_broke(start_pool: Any) -> None:
    pool = await start_pool()
    plain = await pool.ask(COMPLETIONS, GREEDY | {"prompt": "Once upon a time"})
    text = plain.texts["0.text"]
    for stop in (text[13:19], text[20:22], text[9:33]):
        for shown in (False, True):
            body: dict[str, Any] = GREEDY | {
                "prompt": "Once upon a time",
                "stop": [stop, "never there"],
                "include_stop_str_in_output": shown,
            }
            body["stream_options"] = {"include_usage": True}
            whole = await pool.ask(COMPLETIONS, body)
            assert whole.finish == {0: ("stop", stop)}
            for cut in range(1, 13):
                heard = await pool.ask(COMPLETIONS, body, cut)
                assert (heard.texts, heard.finish, heard.done) == (whole.texts, whole.finish, 1), (stop, shown, cut)
                assert heard.usage["completion_tokens"] == whole.usage["completion_tokens"]
                assert heard.usage["prompt_tokens"] == whole.usage["prompt_tokens"]


async def test_a_stream_that_loses_three_engines_reads_as_the_undisturbed_one(start_pool: Any) -> None:
    pool = await start_pool(4)
    path, body = ASKED["usage asked for"]
    whole = await pool.ask(path, body)
    heard = await pool.ask(path, body, 3, 2, 4)
    assert (heard.texts, heard.finish, heard.usage, heard.roles) == (whole.texts, whole.finish, whole.usage, 1)
    assert len(heard.ids) == 1
    assert pool.requests == 4
    assert pool.site.sample("lost_streams_total") == 0
    assert pool.site.sample("continuations_total", way="extend") == 3
    assert pool.site.sample("tokens_total", token_type="output") == 24


async def test_a_sampled_answer_goes_on_from_the_tokens_told(start_pool: Any) -> None:
    pool = await start_pool()
    body = {"prompt": "a b c", "max_tokens": 20, "return_token_ids": True}
    heard = await pool.ask(COMPLETIONS, body, 6)
    assert not heard.errors
    assert heard.finish == {0: ("length", None)}
    assert len(heard.tokens[0]) == 20
    (second,) = [
        one for engine in pool.engines for one in engine.backend.requests if isinstance(one.json["prompt"], list)
    ]
    told = 20 - second.json["max_tokens"]
    assert second.json["prompt"][-told:] == heard.tokens[0][:told]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"n": 2}, "several choices"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"response_format": SCHEMA}, "response_format"),
        ({"tools": TOOLS}, "tools"),
        ({"logprobs": True}, "log-probabilities"),
    ],
)
async def test_what_only_the_lost_engine_could_go_on_with_ends_with_a_clear_error(
    start_pool: Any, body: dict[str, Any], reason: str
) -> None:
    pool = await start_pool()
    heard = await pool.ask(CHAT, {"messages": MESSAGES, "max_tokens": 40, **body}, 4)
    (error,) = heard.errors
    assert error["code"] == "engine_lost"
    assert reason in error["message"] and "tokens" in error["message"]
    assert heard.done == 1
    assert pool.site.sample("lost_streams_total") == 1
    assert pool.requests == 1


async def test_the_client_never_sees_what_the_ingress_asked_for(start_pool: Any) -> None:
    pool = await start_pool()
    for path, body in (ASKED["completion"], ASKED["chat"]):
        for cuts in ((), (4,)):
            heard = await pool.ask(path, body, *cuts)
            assert pool.engines and all(not tokens for tokens in heard.tokens.values())
            assert heard.usage is None


async def test_a_request_that_kills_every_engine_stops_killing(start_pool: Any) -> None:
    pool = await start_pool(6)
    heard = await pool.ask(CHAT, GREEDY | {"messages": MESSAGES}, 2, 2, 2, 2, 2, 2)
    (error,) = heard.errors
    assert "continuation.attempts_max" in error["message"]
    assert pool.requests == 4


async def test_a_stream_waits_for_an_engine_when_all_are_gone(start_pool: Any, kit: Any) -> None:
    pool = await start_pool(1)
    whole = await pool.ask(*ASKED["chat"])
    (engine,) = pool.engines
    url, gone = engine.backend.url, kit.engine("e0", engine.backend.url, phase="Starting")

    async def vanish(answer: Any) -> None:
        engine.backend.behave = engine._behave
        pool.site.source.put(gone)
        engine.cuts = [5]
        await engine._behave(answer)

    engine.backend.behave = vanish
    pool.engines = []
    async with asyncio.TaskGroup() as group:
        stream = group.create_task(pool.ask(*ASKED["chat"]))
        await kit.until(lambda: pool.site.sample("continuations_total") == 1, "the engine was lost")
        assert not stream.done()
        pool.site.source.put(kit.engine("e0", url))
    assert stream.result() == whole


async def test_no_engine_in_time_is_a_clear_error(start_backend: Any, start_site: Any, kit: Any) -> None:
    async def dying(answer: Any) -> None:
        site.source.put(kit.engine("e0", "http://127.0.0.1:1", phase="Starting"))
        await site.table_where(lambda ingress: not ingress.keeper.table.servers["default", "s"].backends)
        await answer.begin(content_type="text/event-stream")
        choice = {"index": 0, "text": "a", "logprobs": None, "finish_reason": None}
        ids = {"token_ids": [1], "prompt_token_ids": [7]}
        await answer.write(kit.event({"id": "i", "object": "o", "model": "m", "choices": [choice | ids]}))

    settings = RoutingSettings(continuation=ContinuationSettings(wait_s=0.3, wait_step_s=0.05))
    site = await start_site(*kit.objects(await start_backend(dying)), settings=settings)
    text = await site.stream("/v1/completions", prompt="x")
    assert b"continuation.wait_s" in text and b"engine_lost" in text
    assert b'"token_ids":null,"prompt_token_ids":null' in text


async def test_with_prefill_and_decode_groups_a_lost_decode_engine_is_replaced(start_pool: Any, kit: Any) -> None:
    pool = await start_pool(3)
    group = {"groupKey": "g", "prefillLabels": {"role": "p"}, "decodeLabels": {"role": "d"}, "localPrefillTokensMax": 0}
    selector = {"matchLabels": {"app": "m"}, "pdGroup": group}
    roles = zip(("p", "d", "d"), pool.engines, strict=True)
    engines = [kit.engine(f"e{i}", one.backend.url, app="m", g="0", role=role) for i, (role, one) in enumerate(roles)]
    pool.site.source.put(kit.model_server(workloadSelector=selector, kvConnector={"type": "http"}), *engines)
    servers = ("default", "s")
    await pool.site.table_where(lambda ingress: bool(ingress.keeper.table.servers[servers].groups))
    await pool.site.table_where(lambda ingress: len(ingress.keeper.table.servers[servers].groups["0"].decode) == 2)
    whole = await pool.ask(*ASKED["usage asked for"])
    prefill = pool.engines[0].backend
    assert "return_token_ids" not in prefill.requests[0].json
    pool.engines[0].cuts, decoders = [], pool.engines[1:]
    shared = [4]
    for one in decoders:
        one.cuts = shared
    pool.engines = []
    assert await pool.ask(*ASKED["usage asked for"]) == whole
    assert pool.site.sample("continuations_total", way="extend") == 1
