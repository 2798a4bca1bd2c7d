"""The routing rows (R1 to R27) of the reference's acceptance scenarios, each under its id.

Rows R28 to R31 are in `tests/routing/external/`. Where hekla means to differ from the peer, the test says why.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from hekla.platform.api.kinds.modelroute import KIND as ROUTE
from hekla.platform.api.patterns import compiled
from hekla.platform.base.tasks import TaskOwner
from hekla.routing.table import build_table

PATH = "/v1/chat/completions"


def targets(**weights: int) -> list[Any]:
    return [{"targetModels": [{"modelServerName": name, "weight": weight} for name, weight in weights.items()]}]


async def two_pools(start_site: Any, start_backend: Any, kit: Any, rules: list[Any], **route: Any) -> Any:
    """Servers `s` and `t`, whose engines know their model as `served-m` and `served-t`."""
    first, second = await start_backend(), await start_backend()
    return await start_site(
        kit.model_route(rules=rules, **route), kit.model_server(),
        kit.model_server("t", model="served-t", workloadSelector={"matchLabels": {"app": "t"}}),
        kit.engine("e0", first.url), kit.engine("e1", second.url, app="t"),
    )  # fmt: skip


async def test_r1_a_request_is_answered_under_the_servers_model_name(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    backend = await start_backend()
    site = await start_site(*kit.objects(backend))
    status, body = await site.post()
    assert (status, body["model"], backend.requests[0].json["model"]) == (200, "served-m", "served-m")


async def test_r2_an_unknown_model_is_a_404_and_counted_as_unknown(start_site: Any, kit: Any) -> None:
    site = await start_site(kit.model_route())
    status, body = await site.post(model="nobody")
    assert status == 404
    assert body["error"]["message"].startswith("route not found")
    assert site.sample("requests_total", model="unknown", error_type="route_not_found", status_code="404") == 1


@pytest.mark.parametrize("body", [{}, {"model": ""}, {"model": 5}])
async def test_r4_a_request_without_a_model_is_a_404(start_site: Any, kit: Any, body: Any) -> None:
    site = await start_site(kit.model_route())
    async with site.client.post(PATH, json={"messages": [], **body}) as response:
        assert response.status == 404
        assert (await response.json())["error"]["message"].startswith("model not found")


async def test_r5_a_request_without_a_prompt_is_a_404(start_site: Any, kit: Any) -> None:
    site = await start_site(kit.model_route())
    async with site.client.post(PATH, json={"model": "m"}) as response:
        assert response.status == 404
        assert (await response.json())["error"]["message"].startswith("prompt not found")


@pytest.mark.parametrize(("row", "first", "second"), [("R7", 70, 30), ("R8", 50, 30)])
async def test_r7_r8_requests_divide_by_weight(
    start_site: Any, start_backend: Any, kit: Any, row: str, first: int, second: int
) -> None:
    site = await two_pools(start_site, start_backend, kit, targets(s=first, t=second))
    met = Counter([(await site.post())[1]["model"] for _ in range(500)])
    assert abs(met["served-m"] / 500 - first / (first + second)) <= 0.05, row


async def test_r10_adapters_are_asked_under_their_own_name_and_unknown_ones_are_not_found(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    backend = await start_backend()
    _, server, engine = kit.objects(backend)
    site = await start_site(kit.model_route(loraAdapters=["lora-A", "lora-B"]), server, engine)
    for name in ("lora-A", "lora-B"):
        assert (await site.post(model=name))[1]["model"] == name
    status, body = await site.post(model="lora-NonExistent")
    assert (status, body["error"]["code"]) == (404, "model_not_found")
    assert body["error"]["message"].startswith("route not found")


async def test_r11_a_route_to_a_missing_server_is_a_404(start_site: Any, kit: Any) -> None:
    site = await start_site(kit.model_route())
    status, body = await site.post()
    assert (status, body["error"]["code"]) == (404, "model_server_not_found")


def header_rule(**match: str) -> list[Any]:
    match_all = {"modelMatch": {"headers": {"X-User": match}}, "targetModels": [{"modelServerName": "s"}]}
    return [match_all]


@pytest.mark.parametrize(("value", "expected"), [("gold-1", 200), ("silver", 404), ("not-gold-1", 404)])
async def test_r13_a_header_is_matched_by_regex(
    start_site: Any, start_backend: Any, kit: Any, value: str, expected: int
) -> None:
    site = await two_pools(start_site, start_backend, kit, header_rule(regex="^gold-.*"))
    async with site.client.post(PATH, json={"model": "m", "messages": []}, headers={"x-user": value}) as response:
        assert response.status == expected


def test_r13_no_regex_can_stop_a_replica() -> None:
    """The peer's engine (Go's) is linear too; Python's own would take longer than the universe has lasted for this."""
    pattern = compiled(r"^(a+)+$")
    began = time.monotonic()
    assert pattern.search("a" * 5000 + "!") is None
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("regex", ["(?=x)y", r"(a)\1", "("])
def test_r17_a_regex_that_is_not_linear_or_not_one_is_refused_with_its_place(kit: Any, regex: str) -> None:
    rules = header_rule(regex=regex)
    assert problems_of(kit, rules) == ["spec.rules[0].modelMatch.headers.X-User.regex"]
    (problem,) = build_table([kit.model_route(rules=rules)], [], []).problems.values()
    assert "does not compile" in problem


async def test_r14_exact_alone_counts_where_prefix_is_set_too(start_site: Any, start_backend: Any, kit: Any) -> None:
    site = await two_pools(start_site, start_backend, kit, header_rule(exact="gold", prefix="g"))
    for value, expected in (("gold", 200), ("gold-1", 404), ("g", 404)):
        async with site.client.post(PATH, json={"model": "m", "messages": []}, headers={"x-user": value}) as response:
            assert response.status == expected, value


def problems_of(kit: Any, rules: list[Any], **spec: Any) -> list[str]:
    return [problem.path for problem in ROUTE.check(kit.model_route(rules=rules, **spec), None)]


def test_r16_a_weight_on_one_target_only_is_refused_and_never_served(kit: Any) -> None:
    rules = [{"targetModels": [{"modelServerName": "s", "weight": 1}, {"modelServerName": "t"}]}]
    assert problems_of(kit, rules) == ["spec.rules[0].targetModels"]
    assert "weights must be set on all targets or on none" in next(
        iter(build_table([kit.model_route(rules=rules)], [], []).problems.values())
    )


def test_r17_what_admission_refuses(kit: Any) -> None:
    both = {"modelServerName": "s", "externalModelProviderName": "x"}
    external = {"externalModelProviderName": "x"}
    assert problems_of(kit, targets(s=0, t=0)) == ["spec.rules[0].targetModels"]
    assert problems_of(kit, [{"targetModels": [both]}]) == ["spec.rules[0].targetModels[0]"]
    assert problems_of(kit, [{"targetModels": [external]}], loraAdapters=["a"]) == [
        "spec.rules[0].targetModels[0].externalModelProviderName"
    ]


def test_r17_failover_targets_are_held_to_the_same_rules_and_have_no_weight(kit: Any) -> None:
    rules = [{"targetModels": [{"modelServerName": "s"}], "failover": [{"modelServerName": "t", "weight": 3}, {}]}]
    assert problems_of(kit, rules) == ["spec.rules[0].failover[0].weight", "spec.rules[0].failover[1]"]


async def test_r19_the_first_two_engines_fail_and_the_client_sees_200(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    asked: list[bytes] = []

    async def third_time_lucky(answer: Any) -> None:
        asked.append(answer.body)
        await (answer.reply(500, {}) if len(asked) <= 2 else kit.chat(answer))

    backends = [await start_backend(third_time_lucky) for _ in range(3)]
    site = await start_site(*kit.objects(*backends))
    assert (await site.post(temperature=0.5))[0] == 200
    assert len(asked) == 3
    assert len(set(asked)) == 1


async def test_r20_when_all_five_engines_fail_the_client_gets_503(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def fails(answer: Any) -> None:
        await answer.reply(500, {})

    backends = [await start_backend(fails) for _ in range(5)]
    site = await start_site(*kit.objects(*backends, trafficPolicy={"retry": {"attempts": 4, "retryInterval": "1ms"}}))
    status, body = await site.post()
    assert status == 503
    assert body["error"]["message"].startswith("request to all pods failed")
    assert [len(backend.requests) for backend in backends] == [1] * 5


async def test_r20_a_4xx_is_not_tried_again(start_site: Any, start_backend: Any, kit: Any) -> None:
    """The peer tries every non-2xx on up to five engines and masks it as 503 (its defect 2): a client's own mistake is
    the client's to see, and five engines have better to do.
    """

    async def refuses(answer: Any) -> None:
        await answer.reply(422, {"detail": "temperature"})

    backends = [await start_backend(refuses) for _ in range(2)]
    site = await start_site(*kit.objects(*backends))
    assert await site.post() == (422, {"detail": "temperature"})
    assert sum(len(backend.requests) for backend in backends) == 1


async def test_r22_a_header_timeout_does_not_cut_the_stream(start_site: Any, start_backend: Any, kit: Any) -> None:
    async def slow(answer: Any) -> None:
        await answer.begin(content_type="text/event-stream")
        for _ in range(5):
            await asyncio.sleep(0.1)  # an engine at work: five times the timeout in all
            await answer.write(kit.event({"choices": [{"delta": {"content": "a"}}]}))
        await answer.end(b"data: [DONE]\n\n")

    site = await start_site(*kit.objects(await start_backend(slow), trafficPolicy={"timeout": "100ms"}))
    text = await site.stream()
    assert text.count(b'"content":"a"') == 5
    assert text.endswith(b"data: [DONE]\n\n")


async def test_r23_headers_that_never_come_fail_the_try_at_the_timeout(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def silent(answer: Any) -> None:
        await answer.wait_left()

    backend = await start_backend(silent)
    site = await start_site(*kit.objects(backend, trafficPolicy={"timeout": "100ms"}))
    status, body = await site.post()
    assert status == 503
    assert "no response headers within 0.1 s" in body["error"]["message"]


async def test_r25_usage_reaches_a_client_that_asked_for_it(start_site: Any, start_backend: Any, kit: Any) -> None:
    site = await start_site(*kit.objects(await start_backend()))
    assert b'"usage":{' in await site.stream(stream_options={"include_usage": True})
    assert b'"usage":{' not in await site.stream()


async def test_r26_a_draining_replica_finishes_its_streams(start_site: Any, start_backend: Any, kit: Any) -> None:
    """The row's restart under load is `tests/faults`' and needs Ray; this is the part one replica plays in it."""
    release = asyncio.Event()

    async def paused(answer: Any) -> None:
        await answer.begin(content_type="text/event-stream")
        await answer.write(kit.event({"choices": [{"delta": {"content": "a"}}]}))
        await release.wait()
        await answer.end(b"data: [DONE]\n\n")

    site = await start_site(*kit.objects(await start_backend(paused)))
    async with TaskOwner("test") as tasks:
        stream = tasks.spawn(site.stream(), "stream")
        await kit.until(lambda: site.ingress.gateway.in_flight == 1, "the stream is under way")
        drained = tasks.spawn(site.ingress.drain(300), "drain")
        await kit.until(lambda: site.ingress.is_draining, "it drains")
        release.set()
        assert await drained
        assert (await stream).endswith(b"data: [DONE]\n\n")
