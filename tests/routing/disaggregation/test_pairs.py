"""Prefill and decode as two requests: rows P2, P5, the edits of every connector, and what a failure of each half does."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import pytest

from hekla.routing.body import Body
from hekla.routing.connectors.catalog import CONNECTORS
from hekla.routing.connectors.interface import HandOver
from hekla.routing.table import build_table

PARAMS = {"do_remote_prefill": True, "remote_engine_id": "x", "remote_block_ids": [[1, 2]], "remote_port": 5600}
PD_GROUP = {
    "groupKey": "group", "prefillLabels": {"role": "prefill"}, "decodeLabels": {"role": "decode"},
    "localPrefillTokensMax": 0,
}  # fmt: skip
"""Prompts of a few tokens are worth a prefill engine only when a manifest says so."""
SELECTOR = {"matchLabels": {"app": "m"}, "pdGroup": PD_GROUP}


async def prefill(answer: Any) -> None:
    await answer.reply(200, {"choices": [], "kv_transfer_params": PARAMS})


def pd_engine(kit: Any, backend: Any, group: str, role: str) -> Any:
    return kit.engine(f"{group}-{role}", backend.url, app="m", group=group, role=role)


@pytest.fixture
def start_pair(start_site: Any, start_backend: Any, kit: Any) -> Any:
    async def start(connector: str = "nixl", groups: tuple[str, ...] = ("g0",), **policy: Any) -> Any:
        pairs = {group: (await start_backend(prefill), await start_backend()) for group in groups}
        engines = [
            pd_engine(kit, backend, group, role)
            for group, pair in pairs.items()
            for role, backend in zip(("prefill", "decode"), pair, strict=True)
        ]
        server = kit.model_server(workloadSelector=SELECTOR, kvConnector={"type": connector}, **policy)
        return await start_site(kit.model_route(), server, *engines), pairs

    return start


async def test_p2_nixl_sends_the_prefill_answers_parameters_to_the_decode_engine(start_pair: Any) -> None:
    site, pairs = await start_pair()
    first, second = pairs["g0"]
    text = await site.stream(max_tokens=50, max_completion_tokens=50, min_tokens=5)
    assert text.endswith(b"data: [DONE]\n\n")
    assert b"usage" not in text
    asked = first.requests[0].json
    assert asked["kv_transfer_params"]["do_remote_decode"] is True
    assert asked["kv_transfer_params"]["do_remote_prefill"] is False
    assert (asked["max_tokens"], asked["max_completion_tokens"]) == (1, 1)
    assert not {"stream", "stream_options", "min_tokens"} & asked.keys()
    decoded = second.requests[0].json
    assert decoded["kv_transfer_params"] == PARAMS
    assert (decoded["max_tokens"], decoded["stream"]) == (50, True)
    assert asked["model"] == decoded["model"] == "served-m"
    assert first.requests[0].headers["x-request-id"] == second.requests[0].headers["x-request-id"]
    assert site.sample("request_prefill_duration_seconds_count") == 1
    assert site.sample("tokens_total", token_type="output") == 3


HAND_OVER = HandOver(room=2**62 + 1, transfer_id="t-1", prefill_host="10.0.0.7", bootstrap_port=8998, engine_id="e")
CARRIED: dict[str, dict[str, Any]] = {
    "http": {},
    "lmcache": {},
    "nixl": {"kv_transfer_params": {"a": 1.5}},
    "mooncake": {
        "kv_transfer_params": {
            "do_remote_prefill": True, "do_remote_decode": False, "remote_engine_id": "e",
            "remote_bootstrap_addr": "http://10.0.0.7:8998", "transfer_id": "t-1",
        }
    },
    "sglang": {"bootstrap_room": 2**62 + 1, "bootstrap_host": "10.0.0.7", "bootstrap_port": 8998},
}  # fmt: skip
ASKED = {
    "nixl": {"do_remote_decode": True, "do_remote_prefill": False},
    "mooncake": {"do_remote_decode": True, "do_remote_prefill": False, "transfer_id": "t-1"},
}


@pytest.mark.parametrize("name", sorted(CONNECTORS))
def test_p2_p3_every_connector_prefills_one_token_and_leaves_the_rest_of_the_request_whole(name: str) -> None:
    raw = b'{"model":"m","prompt":"x","temperature":1.50,"stream":true,"stream_options":{"include_usage":true},"max_tokens":9}'
    body, connector = Body.parse(raw), CONNECTORS[name]
    first = json.loads(connector.prefill_body(body, HAND_OVER).raw)
    params = first.pop("kv_transfer_params", None)
    met = CARRIED[name] if name == "sglang" else {}
    assert first == {"model": "m", "prompt": "x", "temperature": 1.5, "max_tokens": 1, **met}
    if name in ASKED:
        assert {key: value for key, value in params.items() if value is not None} == ASKED[name]
    answered = dataclasses.replace(HAND_OVER, prefill_answer=b'{"kv_transfer_params":{"a":1.50}}')
    second = connector.decode_body(body, answered).raw
    assert json.loads(second) == {**json.loads(raw), **CARRIED[name]}
    assert b"1.50" in second, "numbers reach the engine as they were written"


def test_mooncake_engines_without_a_bootstrap_server_get_what_the_prefill_engine_answered() -> None:
    """Kthena's edits, which Ascend's connector of that name understands."""
    without = dataclasses.replace(HAND_OVER, engine_id="", prefill_answer=b'{"kv_transfer_params":{"a":1.50}}')
    sent = CONNECTORS["mooncake"].decode_body(Body.parse(b"{}"), without)
    assert sent.raw == b'{"kv_transfer_params":{"a":1.50}}'


def test_an_unknown_bootstrap_port_is_left_to_the_engine() -> None:
    sent = CONNECTORS["sglang"].decode_body(Body.parse(b"{}"), dataclasses.replace(HAND_OVER, bootstrap_port=0))
    assert json.loads(sent.raw) == {"bootstrap_room": 2**62 + 1, "bootstrap_host": "10.0.0.7"}


def test_an_ipv6_prefill_engine_is_named_with_brackets_in_a_url_only() -> None:
    over = dataclasses.replace(HAND_OVER, prefill_host="fd00::7")
    mooncake = json.loads(CONNECTORS["mooncake"].decode_body(Body.parse(b"{}"), over).raw)
    assert mooncake["kv_transfer_params"]["remote_bootstrap_addr"] == "http://[fd00::7]:8998"
    assert json.loads(CONNECTORS["sglang"].decode_body(Body.parse(b"{}"), over).raw)["bootstrap_host"] == "fd00::7"


@pytest.mark.parametrize("answer", [b"{}", b"not json", b'{"kv_transfer_params":null}'])
def test_parameters_that_are_missing_become_null(answer: bytes) -> None:
    over = dataclasses.replace(HAND_OVER, prefill_answer=answer)
    sent = CONNECTORS["nixl"].decode_body(Body.parse(b"{}"), over)
    assert sent.raw == b'{"kv_transfer_params":null}'


async def test_both_halves_always_belong_to_one_group(start_pair: Any) -> None:
    site, pairs = await start_pair(groups=("g0", "g1", "g2"))
    for i in range(30):
        assert (await site.post(seed=i))[0] == 200
    for first, second in pairs.values():
        assert [r.json["seed"] for r in first.requests] == [r.json["seed"] for r in second.requests]
        assert first.requests


async def test_p5_no_decode_engine_is_a_503_that_asks_to_come_back(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    # The reference answers 400, as if the request were wrong (its defect 3).
    alone = pd_engine(kit, await start_backend(prefill), "g0", "prefill")
    site = await start_site(kit.model_route(), kit.model_server(workloadSelector=SELECTOR), alone)
    status, body = await site.post()
    assert (status, body["error"]["code"]) == (503, "no_ready_engine")


async def test_halves_of_different_groups_are_no_pair(start_site: Any, start_backend: Any, kit: Any) -> None:
    first, second = await start_backend(prefill), await start_backend()
    engines = [pd_engine(kit, first, "g0", "prefill"), pd_engine(kit, second, "g1", "decode")]
    site = await start_site(kit.model_route(), kit.model_server(workloadSelector=SELECTOR), *engines)
    assert (await site.post())[0] == 200
    assert (len(first.requests), len(second.requests)) == (0, 1), "better alone than not at all"
    assert site.sample("prefill_decisions_total", way="local", reason="no_prefill_engine") == 1


@pytest.mark.parametrize(
    ("labels", "server"), [({"hekla.io/decode-only": "true"}, {}), ({}, {"inferenceEngine": "SGLang"})]
)
async def test_a_decode_engine_that_does_no_prefill_is_not_asked_alone(
    labels: Any, server: Any, start_site: Any, start_backend: Any, kit: Any
) -> None:
    second = await start_backend()
    alone = kit.engine("d", second.url, app="m", group="g1", role="decode", **labels)
    site = await start_site(kit.model_route(), kit.model_server(workloadSelector=SELECTOR, **server), alone)
    status, body = await site.post()
    assert (status, body["error"]["code"]) == (503, "no_ready_engine")
    assert second.requests == []


async def test_p5_when_every_pair_fails_the_client_gets_503(start_pair: Any) -> None:
    # The reference answers 500; a client that may try again should be told so.
    site, pairs = await start_pair(groups=("g0", "g1"))

    async def broken(answer: Any) -> None:
        await answer.reply(500, {})

    for _, second in pairs.values():
        second.behave = broken
    status, body = await site.post()
    assert status == 503
    assert body["error"]["message"].startswith("request to all pods failed after 2 tries")


async def test_a_failing_prefill_engine_is_replaced_by_another_groups(start_pair: Any) -> None:
    site, pairs = await start_pair(groups=("g0", "g1"))

    async def broken(answer: Any) -> None:
        await answer.reply(503, {})

    pairs["g0"][0].behave = broken
    for _ in range(6):
        assert (await site.post())[0] == 200
    assert pairs["g0"][1].requests == [], "a decode engine without a prefill is not asked"
    assert len(pairs["g1"][1].requests) == 6


async def test_a_prefill_engines_400_is_the_clients_to_see(start_pair: Any) -> None:
    site, pairs = await start_pair(groups=("g0", "g1"))

    async def refuses(answer: Any) -> None:
        await answer.reply(400, {"error": {"message": "too long"}})

    for first, _ in pairs.values():
        first.behave = refuses
    status, body = await site.post()
    assert (status, body) == (400, {"error": {"message": "too long"}})
    assert sum(len(first.requests) for first, _ in pairs.values()) == 1


async def test_a_decode_stream_that_breaks_is_never_continued_by_another_pair(start_pair: Any, kit: Any) -> None:
    # The reference appends a second pair's answer to the first one's (its defect 4).
    site, pairs = await start_pair(groups=("g0", "g1"))

    async def breaks(answer: Any) -> None:
        await answer.begin(content_type="text/event-stream")
        await answer.write(kit.event({"choices": [1]}))

    for _, second in pairs.values():
        second.behave = breaks
    text = await site.stream()
    assert b"engine_lost" in text
    assert sum(len(second.requests) for _, second in pairs.values()) == 1


async def test_paths_without_a_decode_phase_go_to_one_engine(start_pair: Any) -> None:
    site, pairs = await start_pair()
    assert (await site.post("/v1/embeddings", input="x"))[0] == 200
    assert (len(pairs["g0"][0].requests), len(pairs["g0"][1].requests)) == (0, 1)


@pytest.mark.parametrize(
    ("path", "body", "pairs_up"),
    [
        ("/v1/completions", {"prompt": ["a", "b"]}, False),
        ("/v1/completions", {"prompt": [[1], [2]]}, False),
        ("/v1/completions", {"prompt": "a", "n": 2}, False),
        ("/v1/completions", {"prompt": "a", "best_of": 3}, False),
        ("/v1/chat/completions", {"messages": [], "n": 2}, False),
        ("/v1/chat/completions", {"messages": [], "use_beam_search": True}, False),
        ("/v1/completions", {"prompt": [1, 2, 3]}, True),
        ("/v1/completions", {"prompt": ["a"]}, True),
        ("/v1/completions", {"prompt": "a", "n": 1, "best_of": None}, True),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}] * 3}, True),
    ],
)
async def test_only_a_request_of_one_sequence_is_prefilled_elsewhere(
    start_pair: Any, path: str, body: Any, pairs_up: bool
) -> None:
    # vLLM's answer names the KV of the first sequence only: all prompts of a batch would continue from that one.
    site, pairs = await start_pair()
    first, second = pairs["g0"]
    async with site.client.post(path, json={"model": "m", **body}) as response:
        assert response.status == 200
    assert len(first.requests) == int(pairs_up)
    assert ("kv_transfer_params" in second.requests[0].json) is pairs_up


async def test_a_decode_engine_counts_from_its_choice_so_that_prefills_in_flight_spread(
    start_pair: Any, kit: Any
) -> None:
    site, pairs = await start_pair(groups=("g0", "g1"))
    release = asyncio.Event()

    async def held(answer: Any) -> None:
        await release.wait()
        await prefill(answer)

    for first, _ in pairs.values():
        first.behave = held
    async with asyncio.TaskGroup() as group:
        for i in range(6):
            group.create_task(site.post())
            await kit.until(lambda n=i + 1: sum(len(p.requests) for p, _ in pairs.values()) == n, "prefilling")
        loads = [site.ingress.loads.load(f"default/{name}-decode").requests for name in pairs]
        assert loads == [3, 3]
        release.set()
    assert [len(second.requests) for _, second in pairs.values()] == [3, 3]
    assert site.ingress.loads.own() == {}


def test_workers_and_engines_without_an_address_are_in_no_group(kit: Any) -> None:
    worker = kit.engine("g0-worker", "http://h:3", app="m", group="g0", role="decode")
    worker["spec"]["index"] = 1
    engines = [
        kit.engine("g0-prefill", "http://h:1", app="m", group="g0", role="prefill"),
        kit.engine("g0-decode", "http://h:2", app="m", group="g0", role="decode"),
        kit.engine("g0-nowhere", "", app="m", group="g0", role="decode"),
        worker,
    ]
    server = build_table([], [kit.model_server(workloadSelector=SELECTOR)], engines).servers[("default", "s")]
    assert server.groups is not None
    assert [b.key for b in server.groups["g0"].decode] == ["default/g0-decode"]
    assert {b.key for b in server.backends} == {"default/g0-prefill", "default/g0-decode"}
