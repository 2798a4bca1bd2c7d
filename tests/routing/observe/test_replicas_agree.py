"""Three replicas on loopback UDP: what they agree on, and that silence between them degrades and serves."""

from __future__ import annotations

import dataclasses
from typing import Any

from hekla.routing.config import RoutingSettings
from hekla.routing.limits.settings import LimitRule, RateLimitSettings
from hekla.routing.prefix.approximate import ApproximateIndex
from hekla.routing.prefix.hashing import BlockHasher
from hekla.routing.prefix.settings import ApproximateSettings
from hekla.routing.prefix.sharing import RouteSharing
from hekla.routing.traffic.settings import EjectionSettings, TrafficSettings
from hekla.routing.traffic.sticky import SessionMemory

PROMPT = "You are a helpful assistant, and this is the beginning that all of these requests share. " * 40


async def three(start_site: Any, kit: Any, backends: list[Any], settings: RoutingSettings) -> tuple[list[Any], Any]:
    """Replicas that tell each other, and the list of addresses that a test may empty."""
    addresses: list[tuple[str, int]] = []
    settings = dataclasses.replace(settings, gossip=kit.gossip_settings)
    sites = [
        await start_site(*kit.objects(*backends), settings=settings, peers=lambda: addresses, seed=n) for n in range(3)
    ]
    addresses.extend(("127.0.0.1", site.ingress.gossip.port) for site in sites)
    await kit.until(
        lambda: all("peers=2" in repr(site.ingress.limits.ledger) for site in sites), "they hear each other"
    )
    return sites, addresses


async def test_what_one_replica_sent_where_the_others_know_too(start_site: Any, start_backend: Any, kit: Any) -> None:
    backends = [await start_backend() for _ in range(4)]
    sites, _ = await three(start_site, kit, backends, RoutingSettings())
    await sites[0].post(messages=[{"role": "user", "content": PROMPT}])
    home = next(f"default/e{i}" for i, backend in enumerate(backends) if backend.requests)
    blocks = sites[0].ingress.prefix.approximate.entries_of(home)
    assert blocks > 5
    for site in sites[1:]:
        index = site.ingress.prefix.approximate
        await kit.until(lambda index=index: index.entries_of(home) == blocks, "told")
    for site in sites:
        await site.post(messages=[{"role": "user", "content": PROMPT + "And my question?"}])
    assert [len(backend.requests) for backend in backends].count(0) == 3, "all went where the prefix is"


async def test_an_engine_that_one_replica_ejects_gets_nothing_from_the_others(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def fails(answer: Any) -> None:
        await answer.reply(503, {"error": "broken"})

    backends = [await start_backend(fails), await start_backend()]
    ejection = EjectionSettings(consecutive_failures=2, base_s=60.0)
    sites, _ = await three(start_site, kit, backends, RoutingSettings(traffic=TrafficSettings(ejection=ejection)))
    while not sites[0].ingress.traffic.health.own_ejections(sites[0].ingress._clock.monotonic()):
        assert (await sites[0].post())[0] == 200
    for site in sites[1:]:
        health = site.ingress.traffic.health
        await kit.until(lambda health=health: health.state("default/e0").value == "open", "told")
    before = len(backends[0].requests)
    for _ in range(5):
        assert [(await site.post())[0] for site in sites] == [200, 200, 200]
    assert len(backends[0].requests) == before
    assert all(site.sample("engines_ejected", model_server="default/s") == 1 for site in sites)
    assert all(site.sample("engines_ready", model_server="default/s") == 2 for site in sites)


async def test_fairness_counters_are_told(start_site: Any, start_backend: Any, kit: Any) -> None:
    sites, _ = await three(start_site, kit, [await start_backend()], RoutingSettings())
    for site in sites:
        await site.post()  # a queue for the server in each

    def served(site: Any) -> float:
        return float(site.ingress.gate.service("default/s", tenant="", priority=0))

    before = [served(site) for site in sites]
    await sites[0].post()
    await kit.until(lambda: all(served(site) > was for site, was in zip(sites, before, strict=True)), "all count it")


async def test_without_gossip_every_replica_serves_and_keeps_its_part_of_the_limit_row_L8(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    limits = RateLimitSettings((LimitRule("r", requests=30, unit="day"),), silence_s=0.3)
    sites, addresses = await three(start_site, kit, [await start_backend()], RoutingSettings(rate_limits=limits))

    def share(site: Any) -> float:
        return float(site.ingress.limits.ledger.share(site.ingress._clock.monotonic()))

    known = list(addresses)
    addresses[:] = [("127.0.0.1", 9)] * 2  # the network is cut: nobody is at these addresses
    await kit.until(lambda: all(share(site) < 0.34 for site in sites), "nobody hears anybody")
    granted = 0
    for site in sites:
        for _ in range(15):
            granted += (await site.post())[0] == 200
    assert granted == 30, "ten each"
    addresses[:] = known


async def test_a_session_that_moved_is_found_by_the_others(start_site: Any, start_backend: Any, kit: Any) -> None:
    memories = [SessionMemory(100), SessionMemory(100)]
    memories[0].remember("s", "at-home", "e1", 0.0, ttl_s=60)
    memories[0].remember("s", "moved", "e2", 0.0, ttl_s=60, has_moved=True)
    told = memories[0].news(1.0, 10)
    assert [(one.engine, one.left_s) for one in told] == [("e2", 59.0)]
    memories[1].hear(told, 100.0)
    assert memories[1].remembered("s", "moved", 158.0) == "e2"
    assert memories[1].remembered("s", "at-home", 101.0) is None, "it needs no telling"
    assert memories[1].remembered("s", "moved", 160.0) is None, "forgotten in time"
    memories[1].hear(told, 100.0)
    memories[1].remember("s", "moved", "e3", 110.0, ttl_s=60)
    assert memories[1].remembered("s", "moved", 111.0) == "e3", "the latest counts"
    assert [one.engine for one in memories[1].news(111.0, 10)] == ["e3"], "and is told on: it is still away"
    sites, _ = await three(start_site, kit, [await start_backend(), await start_backend()], RoutingSettings())
    sites[0].ingress.traffic.sessions.remember(
        "default/s", "c", "default/e1", sites[0].ingress._clock.monotonic(), ttl_s=60, has_moved=True
    )
    for site in sites[1:]:
        memory, now = site.ingress.traffic.sessions, site.ingress._clock.monotonic
        await kit.until(
            lambda memory=memory, now=now: memory.remembered("default/s", "c", now()) == "default/e1", "told"
        )


def index() -> ApproximateIndex:
    return ApproximateIndex(ApproximateSettings(), BlockHasher("seed"))


class Prompt:
    """A request of these blocks."""

    path, upstream_model, token_ids = "/v1/completions", "m", None

    def __init__(self, text: str) -> None:
        self.prompt_text, self.memo, self.estimated_tokens = text, dict[str, Any](), len(text) // 4


def sent(where: ApproximateIndex, text: str, engine: str = "e") -> None:
    where.finished(Prompt(text), engine, 0.0, succeeded=True)  # type: ignore[arg-type]


def test_only_new_blocks_are_told_and_again_after_a_while() -> None:
    own = index()
    sharing = RouteSharing(own, lambda: ["e"], bytes_per_s=10**6)
    sent(own, "x" * 2560)
    first = sharing.news(0.0, 1300)
    assert sum(len(told.blocks) for told in first) == 80
    sent(own, "x" * 2560 + "y" * 512)
    assert sum(len(told.blocks) for told in sharing.news(1.0, 1300)) == 16, "two new blocks"
    assert sharing.news(2.0, 1300) == []
    sent(own, "x" * 2560)
    assert sum(len(told.blocks) for told in sharing.news(12.0, 1300)) == 80, "a lost datagram is made good"


def test_a_long_prompt_is_told_in_datagrams_that_keep_their_bound_and_the_peer_knows_all_of_it() -> None:
    own, other = index(), index()
    sharing, hearing = (
        RouteSharing(own, lambda: ["e"], bytes_per_s=10**6),
        RouteSharing(other, lambda: ["e"], bytes_per_s=1),
    )
    text = "".join(f"{n:07d} " for n in range(32_000))
    sent(own, text)
    while told := sharing.news(0.0, 1300):
        assert sum(len(one.blocks) + len(one.engine) for one in told) <= 1300
        hearing.hear(told, 0.0)
    assert other.entries_of("e") == own.entries_of("e") == 1000
    other.check()


def test_the_rate_is_kept_whatever_comes() -> None:
    own = index()
    sharing = RouteSharing(own, lambda: ["e"], bytes_per_s=10_000)
    size = 0
    for second in range(20):
        for n in range(50):
            sent(own, f"{second}-{n}-" + "z" * 25_600)
        for step in range(50):
            while told := sharing.news(second + step / 50, 1300):
                size += sum(len(one.blocks) for one in told)
    assert size <= 10_000 * 20.5 + 1300
    assert size >= 10_000 * 15


def test_news_of_engines_that_are_not_in_the_table_are_passed_over() -> None:
    own, other = index(), index()
    sharing, hearing = RouteSharing(own, lambda: ["e"], bytes_per_s=10**6), RouteSharing(other, list, bytes_per_s=1)
    sent(own, "x" * 2560)
    hearing.hear(sharing.news(0.0, 1300), 0.0)
    assert other.entries == 0
