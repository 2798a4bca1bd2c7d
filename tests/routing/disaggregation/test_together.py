"""Connectors whose two engines are asked at the same time, and what a failure of one half does to the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from hekla.platform.base.tasks import TaskOwner

PD_GROUP = {"groupKey": "g", "prefillLabels": {"role": "p"}, "decodeLabels": {"role": "d"}, "localPrefillTokensMax": 0}
SELECTOR = {"matchLabels": {"app": "m"}, "pdGroup": PD_GROUP}


async def refuse(answer: Any) -> None:
    await answer.reply(503, {})


async def hang(answer: Any) -> None:
    await answer.wait_left()


@pytest.fixture
def start_pool(start_site: Any, start_backend: Any, kit: Any) -> Any:
    """Prefill and decode engines of one group, by number, under SGLang's connector or another."""

    async def start(prefill: int, decode: int, **server: Any) -> Any:
        first = [await start_backend() for _ in range(prefill)]
        second = [await start_backend() for _ in range(decode)]
        engines = [kit.engine(f"p{i}", one.url, app="m", g="0", role="p") for i, one in enumerate(first)]
        engines += [kit.engine(f"d{i}", one.url, app="m", g="0", role="d") for i, one in enumerate(second)]
        for engine in engines[:prefill]:
            engine["status"]["bootstrapPort"] = 9001
        kind = {"inferenceEngine": "SGLang"} | server
        site = await start_site(kit.model_route(), kit.model_server(workloadSelector=SELECTOR, **kind), *engines)
        return site, first, second

    return start


@pytest_asyncio.fixture
async def clients() -> AsyncIterator[TaskOwner]:
    async with TaskOwner("clients") as tasks:
        yield tasks


async def test_p3_both_halves_meet_in_the_same_room(start_pool: Any, kit: Any) -> None:
    site, (first,), (second,) = await start_pool(1, 1)
    text = await site.stream(max_tokens=9)
    assert text.endswith(b"data: [DONE]\n\n")
    asked, decoded = first.requests[0].json, second.requests[0].json
    assert 0 <= asked["bootstrap_room"] < 2**63
    for body in (asked, decoded):
        assert body["bootstrap_room"] == asked["bootstrap_room"]
        assert (body["bootstrap_host"], body["bootstrap_port"]) == ("127.0.0.1", 9001)
    assert (asked["max_tokens"], decoded["max_tokens"], decoded["stream"]) == (1, 9, True)
    assert "stream" not in asked
    await kit.until(lambda: site.sample("request_prefill_duration_seconds_count") == 1, "both phases are measured")
    assert site.ingress.loads.own() == {}


async def test_p3_neither_half_waits_for_the_others_answer(start_pool: Any, kit: Any, clients: TaskOwner) -> None:
    site, (first,), (second,) = await start_pool(1, 1)
    met = asyncio.Event()

    async def waits(answer: Any) -> None:
        await met.wait()
        await kit.chat(answer)

    first.behave = second.behave = waits
    asked = clients.spawn(site.post(), "asks")
    await kit.until(lambda: bool(first.requests and second.requests), "both asked")
    met.set()
    assert (await asked)[0] == 200


async def test_p3_a_retry_uses_a_new_room(start_pool: Any) -> None:
    site, _, second = await start_pool(2, 2)
    second[0].behave = refuse
    while not second[0].requests:
        assert (await site.post())[0] == 200
    rooms = [request.json["bootstrap_room"] for one in second for request in one.requests]
    assert len(set(rooms)) == len(rooms)


async def test_p6_a_decode_engine_that_fails_takes_the_prefill_request_with_it(start_pool: Any, kit: Any) -> None:
    site, (first,), (second,) = await start_pool(1, 1)
    first.behave = hang

    async def fails_once_both_are_asked(answer: Any) -> None:
        await kit.until(lambda: bool(first.requests), "the prefill is under way")
        await refuse(answer)

    second.behave = fails_once_both_are_asked
    assert (await site.post())[0] == 503
    await kit.until(lambda: all(request.left.is_set() for request in first.requests), "the prefill was cancelled")
    assert site.ingress.loads.own() == {}


async def test_a_prefill_engine_that_fails_takes_the_decode_request_with_it(start_pool: Any, kit: Any) -> None:
    site, first, (second,) = await start_pool(2, 1)
    states = [refuse, kit.chat]

    async def decodes(answer: Any) -> None:
        await (hang if len(second.requests) == 1 else kit.chat)(answer)

    async def prefills(answer: Any) -> None:
        await kit.until(lambda: bool(second.requests), "the decode request is there")
        await states.pop(0)(answer)

    first[0].behave = first[1].behave = prefills
    second.behave = decodes
    assert (await site.post())[0] == 200
    assert [len(one.requests) for one in first] == [1, 1], "another prefill engine was asked"
    await second.requests[0].left.wait()
    assert len(second.requests) == 2


async def test_a_prefill_engines_400_is_the_clients_even_while_the_decode_engine_waits(start_pool: Any) -> None:
    site, (first,), (second,) = await start_pool(1, 1)

    async def too_long(answer: Any) -> None:
        await answer.reply(400, {"error": {"message": "too long"}})

    first.behave, second.behave = too_long, hang
    assert await site.post() == (400, {"error": {"message": "too long"}})
    await second.requests[0].left.wait()


async def test_a_client_that_leaves_cancels_both_halves(start_pool: Any, kit: Any, clients: TaskOwner) -> None:
    site, (first,), (second,) = await start_pool(1, 1)
    first.behave = second.behave = hang
    asked = clients.spawn(site.post(), "asks")
    await kit.until(lambda: bool(first.requests and second.requests), "both asked")
    asked.cancel()
    await kit.until(lambda: first.requests[0].left.is_set() and second.requests[0].left.is_set(), "both cancelled")
    await kit.until(lambda: site.ingress.loads.own() == {}, "no load is left")


# -- one after the other ---------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_between_the_phases_is_not_decoded_for(
    start_pool: Any, kit: Any, clients: TaskOwner
) -> None:
    site, (first,), (second,) = await start_pool(1, 1, inferenceEngine="vLLM", kvConnector={"type": "nixl"})
    first.behave = hang
    asked = clients.spawn(site.post(), "asks")
    await kit.until(lambda: bool(first.requests), "prefilling")
    asked.cancel()
    await kit.until(lambda: first.requests[0].left.is_set(), "the prefill is cancelled")
    await kit.until(lambda: site.ingress.loads.own() == {}, "no load is left")
    assert second.requests == []


@pytest.mark.parametrize("status", [429, 503])
async def test_a_computed_prompt_is_taken_to_another_decode_engine(start_pool: Any, status: int) -> None:
    site, (first,), second = await start_pool(1, 2, inferenceEngine="vLLM", kvConnector={"type": "nixl"})

    async def computes(answer: Any) -> None:
        await answer.reply(200, {"kv_transfer_params": {"number": len(first.requests)}})

    async def busy(answer: Any) -> None:
        await answer.reply(status, {})

    first.behave, second[0].behave = computes, busy
    sent = 0
    while not second[0].requests:
        assert (await site.post())[0] == 200
        sent += 1
    assert len(first.requests) == sent, "no prompt was computed twice"
    given = [request.json["kv_transfer_params"] for one in second for request in one.requests]
    assert given.count({"number": sent}) == 2, "the same parameters, at both"
    assert site.sample("prefill_decisions_total", reason="handed") == 1


async def test_when_loading_kv_fails_the_next_decode_engine_computes_the_prompt(start_pool: Any, kit: Any) -> None:
    site, (first,), second = await start_pool(1, 2, inferenceEngine="vLLM", kvConnector={"type": "nixl"})

    async def cant_load(answer: Any) -> None:
        if answer.json.get("kv_transfer_params"):
            await answer.reply(500, {"error": "KV load failure"})
        else:
            await kit.chat(answer)

    async def computes(answer: Any) -> None:
        await answer.reply(200, {"kv_transfer_params": {"a": 1}})

    first.behave = computes
    for one in second:
        one.behave = cant_load
    assert (await site.post())[0] == 200
    assert sum(len(one.requests) for one in second) == 2
    assert site.sample("prefill_decisions_total", way="local", reason="hand_over_failed") == 1


async def test_a_failing_prefill_engine_leaves_the_prompt_to_the_decode_engine(start_pool: Any) -> None:
    site, (first,), (second,) = await start_pool(1, 1, inferenceEngine="vLLM", kvConnector={"type": "nixl"})
    first.behave = refuse
    assert (await site.post())[0] == 200
    assert "kv_transfer_params" not in second.requests[0].json
    assert site.sample("prefill_decisions_total", way="local", reason="no_prefill_engine") == 1


async def test_data_parallel_engines_get_the_same_rank(start_site: Any, start_backend: Any, kit: Any) -> None:
    first, second = await start_backend(), await start_backend()
    ranks = {"hekla.io/data-parallel-size": "4"}
    engines = [
        kit.engine("p", first.url, app="m", g="0", role="p", **ranks),
        kit.engine("d", second.url, app="m", g="0", role="d", **ranks),
    ]
    server = kit.model_server(workloadSelector=SELECTOR, kvConnector={"type": "nixl"})
    site = await start_site(kit.model_route(), server, *engines)
    for _ in range(12):
        assert (await site.post())[0] == 200
    pairs = [
        (p.headers["x-data-parallel-rank"], d.headers["x-data-parallel-rank"])
        for p, d in zip(first.requests, second.requests, strict=True)
    ]
    assert all(p == d and p in "0123" for p, d in pairs)
    assert len(set(pairs)) > 1
    async with site.client.post(
        "/v1/chat/completions", json={"model": "m", "messages": []}, headers={"X-data-parallel-rank": "3"}
    ) as response:
        assert response.status == 200
    assert first.requests[-1].headers["x-data-parallel-rank"] == "3", "a client's own choice stays"


# -- mooncake --------------------------------------------------------------------------------------------------------


async def start_mooncake(start_site: Any, start_backend: Any, kit: Any, bootstrap: Any) -> Any:
    first, second = await start_backend(), await start_backend()
    engines = [
        kit.engine("p", first.url, app="m", g="0", role="p"),
        kit.engine("d", second.url, app="m", g="0", role="d"),
    ]
    engines[0]["status"]["bootstrapPort"] = int(bootstrap.url.rpartition(":")[2])
    server = kit.model_server(workloadSelector=SELECTOR, kvConnector={"type": "mooncake"})
    return await start_site(kit.model_route(), server, *engines), first, second


async def test_mooncake_halves_meet_by_a_transfer_id(start_site: Any, start_backend: Any, kit: Any) -> None:
    async def query(answer: Any) -> None:
        assert answer.path == "/query"
        await answer.reply(200, {"0": {"engine_id": "abc_dp0", "worker_addr": {"0": {"0": "tcp://127.0.0.1:1"}}}})

    bootstrap = await start_backend(query)
    site, first, second = await start_mooncake(start_site, start_backend, kit, bootstrap)
    for _ in range(3):
        assert (await site.post())[0] == 200
    ids = []
    for asked, decoded in zip(first.requests, second.requests, strict=True):
        given, fetched = asked.json["kv_transfer_params"], decoded.json["kv_transfer_params"]
        assert (given["do_remote_decode"], given["do_remote_prefill"]) == (True, False)
        assert fetched == {
            "do_remote_prefill": True, "do_remote_decode": False, "remote_engine_id": "abc_dp0",
            "remote_bootstrap_addr": bootstrap.url, "transfer_id": given["transfer_id"],
        }  # fmt: skip
        ids.append(given["transfer_id"])
    assert len(set(ids)) == 3
    assert len(bootstrap.requests) == 1, "its id is asked for once"


async def test_mooncake_without_a_bootstrap_server_goes_one_after_the_other(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    """As the peer does, and as Ascend's connector of the same name wants it."""
    absent = await start_backend(refuse)
    site, first, second = await start_mooncake(start_site, start_backend, kit, absent)

    async def computes(answer: Any) -> None:
        assert second.requests == []
        await answer.reply(200, {"kv_transfer_params": {"remote_block_ids": [1]}})

    first.behave = computes
    assert (await site.post())[0] == 200
    assert second.requests[0].json["kv_transfer_params"] == {"remote_block_ids": [1]}
