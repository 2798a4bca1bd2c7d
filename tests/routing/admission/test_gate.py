"""The queue in front of real sockets: who waits, who goes, who is told what."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hekla.routing.admission.settings import AdmissionSettings
from hekla.routing.config import LimitSettings, RoutingSettings
from hekla.routing.load import Counts


def settings(limits: LimitSettings | None = None, **admission: Any) -> RoutingSettings:
    return RoutingSettings(admission=AdmissionSettings(**admission), limits=limits or LimitSettings())


class Held:
    """A backend's behaviour: every request waits until it is let go."""

    def __init__(self, kit: Any) -> None:
        self._kit, self.doors = kit, list[asyncio.Event]()

    async def __call__(self, answer: Any) -> None:
        door = asyncio.Event()
        self.doors.append(door)
        await door.wait()
        await self._kit.chat(answer)

    def open(self) -> None:
        for door in self.doors:
            door.set()


@pytest.fixture
def held(kit: Any) -> Held:
    return Held(kit)


async def ask(site: Any, **headers: str) -> tuple[int, Any, Any]:
    body = {"model": "m", "prompt": "x"}
    async with site.client.post("/v1/completions", json=body, headers=headers) as response:
        return response.status, await response.json(), response.headers


async def test_an_uncontended_request_is_admitted_and_counted(start_site: Any, start_backend: Any, kit: Any) -> None:
    site = await start_site(*kit.objects(await start_backend()))
    assert (await site.post())[0] == 200
    assert site.sample("fairness_queue_dequeue_total", model="m", user_id="_all") == 1
    assert site.sample("fairness_queue_inflight", model="m") == 0
    assert site.ingress.gate.waiting == 0


async def test_the_next_goes_when_one_ends(start_site: Any, start_backend: Any, kit: Any, held: Held) -> None:
    backend = await start_backend(held)
    site = await start_site(*kit.objects(backend), settings=settings(concurrent_max=1, poll_s=30.0))
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(site)) for _ in range(3)]
        for ended in range(3):
            await kit.until(lambda n=ended: len(held.doors) == n + 1, "the next is at the engine")
            assert site.sample("fairness_queue_size", model="m") == 2 - ended
            held.doors[ended].set()
    assert [task.result()[0] for task in asked] == [200, 200, 200]
    assert site.sample("fairness_queue_size", model="m") == 0


async def test_who_waits_too_long_is_told_when_to_come_back_row_L11(
    start_site: Any, start_backend: Any, kit: Any, held: Held
) -> None:
    """L11. The peer answers 504; overload is no fault of a server behind this one, so it is 429 with Retry-After."""
    backend = await start_backend(held)
    site = await start_site(*kit.objects(backend), settings=settings(concurrent_max=1, timeout_s=0.1))
    async with asyncio.TaskGroup() as group:
        first = group.create_task(ask(site))
        await kit.until(lambda: len(held.doors) == 1, "the first is at the engine")
        status, body, headers = await ask(site)
        assert (status, body["error"]["code"]) == (429, "queue_timeout")
        assert body["error"]["type"] == "rate_limit_error"
        assert int(headers["retry-after"]) >= 1
        held.open()
    assert first.result()[0] == 200
    assert len(backend.requests) == 1
    assert site.sample("admission_refused_total", model="m", reason="queue_timeout") == 1


async def test_a_client_that_leaves_the_queue_is_never_sent_upstream_row_L11(
    start_site: Any, start_backend: Any, kit: Any, held: Held
) -> None:
    backend = await start_backend(held)
    site = await start_site(*kit.objects(backend), settings=settings(concurrent_max=1))
    async with asyncio.TaskGroup() as group:
        first = group.create_task(ask(site))
        await kit.until(lambda: len(held.doors) == 1, "the first is at the engine")
        second = group.create_task(ask(site))
        await kit.until(lambda: site.ingress.gate.waiting == 1, "the second waits")
        second.cancel()
        await kit.until(lambda: site.ingress.gate.waiting == 0, "the second is gone")
        held.open()
    assert first.result()[0] == 200
    assert len(backend.requests) == 1
    assert site.sample("fairness_queue_cancelled_total", model="m") == 1


async def test_a_full_queue_says_so(start_site: Any, start_backend: Any, kit: Any, held: Held) -> None:
    site = await start_site(*kit.objects(await start_backend(held)), settings=settings(concurrent_max=1, queue_max=1))
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(site))]
        await kit.until(lambda: len(held.doors) == 1, "the first is at the engine")
        asked.append(group.create_task(ask(site)))
        await kit.until(lambda: site.ingress.gate.waiting == 1, "the second waits")
        status, body, _ = await ask(site)
        assert (status, body["error"]["code"]) == (429, "queue_full")
        held.open()
        await kit.until(lambda: len(held.doors) == 2, "the second is at the engine")
        held.open()
    assert [task.result()[0] for task in asked] == [200, 200]


async def test_requests_per_engine_are_limited_row_L15(
    start_site: Any, start_backend: Any, kit: Any, held: Held
) -> None:
    """L15, with 2 for each of two engines: the fifth waits."""
    backends = [await start_backend(held), await start_backend(held)]
    site = await start_site(*kit.objects(*backends), settings=settings(per_engine_max=2))
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(ask(site))
        await kit.until(lambda: len(held.doors) == 4 and site.ingress.gate.waiting == 1, "the fifth waits")
        held.open()
        await kit.until(lambda: len(held.doors) == 5, "the fifth is at an engine")
        held.open()


async def test_a_follow_up_of_a_completed_session_goes_first_row_L14(
    start_site: Any, start_backend: Any, kit: Any, held: Held
) -> None:
    backend = await start_backend()
    site = await start_site(*kit.objects(backend), settings=settings(concurrent_max=1))
    header = "X-Session-ID"
    assert (await ask(site, **{header: "s1"}))[0] == 200
    backend.behave = held
    async with asyncio.TaskGroup() as group:
        group.create_task(ask(site))
        await kit.until(lambda: len(held.doors) == 1, "one is at the engine")
        for n, session in enumerate(("s2", "s3", "s1")):
            group.create_task(ask(site, **{header: session}))
            await kit.until(lambda n=n: site.ingress.gate.waiting == n + 1, "it waits")
        for n in range(4):
            await kit.until(lambda n=n: len(held.doors) == n + 1, "the next is at the engine")
            held.doors[n].set()
    assert [request.headers.get("x-session-id") for request in backend.requests[2:]] == ["s1", "s2", "s3"]
    assert site.sample("session_boost_dequeue_total", model="m") == 4


async def test_engines_that_are_busy_are_waited_for(start_site: Any, start_backend: Any, kit: Any) -> None:
    """The peer answers 400 (its defect 3)."""
    limits = LimitSettings(engine_requests_max=10)
    site = await start_site(*kit.objects(await start_backend()), settings=settings(limits, poll_s=0.01))
    load = site.ingress.loads.load("default/e0")
    load.own = Counts(10, 0, 0)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(ask(site))
        await kit.until(lambda: site.ingress.gate.waiting == 1, "it waits")
        load.own = Counts()
    assert asked.result()[0] == 200


async def test_no_ready_engine_is_not_waited_for(start_site: Any, kit: Any) -> None:
    site = await start_site(kit.model_route(), kit.model_server())
    status, body, _ = await ask(site)
    assert (status, body["error"]["code"]) == (503, "no_ready_engine")


async def test_the_clients_own_deadline_ends_in_a_504(
    start_site: Any, start_backend: Any, kit: Any, held: Held
) -> None:
    site = await start_site(*kit.objects(await start_backend(held)), settings=settings(concurrent_max=1))
    async with asyncio.TaskGroup() as group:
        group.create_task(ask(site))
        await kit.until(lambda: len(held.doors) == 1, "the first is at the engine")
        status, body, _ = await ask(site, **{"x-request-timeout": "0.1"})
        assert (status, body["error"]["code"]) == (504, "deadline_exceeded")
        held.open()
    assert len(held.doors) == 1


async def test_those_admitted_in_one_moment_see_each_other(
    start_site: Any, start_backend: Any, kit: Any, held: Held
) -> None:
    """Two wait, and both engines become free at once: each gets one."""
    backends = [await start_backend(held), await start_backend(held)]
    limits = LimitSettings(engine_requests_max=1)
    site = await start_site(*kit.objects(*backends), settings=settings(limits, poll_s=0.01))
    loads = [site.ingress.loads.load(f"default/e{n}") for n in range(2)]
    for load in loads:
        load.own = Counts(1, 0, 0)
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(ask(site))
        await kit.until(lambda: site.ingress.gate.waiting == 2, "both wait")
        for load in loads:
            load.own = Counts()
        await kit.until(lambda: len(held.doors) == 2, "both are at an engine")
        held.open()
    assert [len(backend.requests) for backend in backends] == [1, 1]


async def test_switched_off_nothing_waits(start_site: Any, start_backend: Any, kit: Any) -> None:
    site = await start_site(*kit.objects(await start_backend()), settings=settings(enabled=False, concurrent_max=1))
    assert [status for status, _ in await asyncio.gather(*(site.post() for _ in range(5)))] == [200] * 5
    assert site.sample("fairness_queue_dequeue_total", model="m") == 0


async def test_service_at_one_replica_counts_at_the_others(
    start_site: Any, start_backend: Any, kit: Any, held: Held
) -> None:
    backend = await start_backend()
    peers: list[tuple[str, int]] = []
    sites = [
        await start_site(
            *kit.objects(backend),
            settings=settings(concurrent_max=1, quantum_requests=0.0),
            peers=lambda n=n: [peer for i, peer in enumerate(peers) if i != n],
        )
        for n in range(2)
    ]
    peers.extend(("127.0.0.1", site.ingress.gossip.port) for site in sites)
    await kit.until(
        lambda: all("peers=1" in repr(site.ingress.limits.ledger) for site in sites), "they hear each other"
    )
    here, there = sites
    for site in sites:
        assert (await ask(site))[0] == 200

    def service() -> float:
        return float(here.ingress.gate.service("default/s", tenant="", priority=0))

    def heard() -> float:
        return float(here.sample("gossip_datagrams_total", direction="received", outcome="ok"))

    before = service()
    for _ in range(20):  # the first word of a tenant is where counting begins
        seen = heard()
        assert (await ask(there))[0] == 200
        await kit.until(lambda seen=seen: heard() > seen + 1, "news have come")
        if service() > before:
            break
    assert service() > before
