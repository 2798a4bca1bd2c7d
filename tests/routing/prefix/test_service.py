from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry, generate_latest

from hekla.deployments.simengine.events import BlockStored
from hekla.deployments.simengine.publisher import KvEventPublisher, KvEventsConfig
from hekla.platform.base.clock import SystemClock
from hekla.platform.base.ids import SeededIds
from hekla.platform.base.tasks import TaskOwner
from hekla.routing.backend import Backend, ModelServer
from hekla.routing.body import Body
from hekla.routing.prefix.engine_facts import FakeEngineFacts, sources_of
from hekla.routing.prefix.metrics import PrefixMetrics
from hekla.routing.prefix.service import PrefixService
from hekla.routing.prefix.settings import PrefixSettings, TokeniserSettings
from hekla.routing.prefix.subscriber import EventSource
from hekla.routing.view import LazyView

ROOT = Path(__file__).parents[3]


class Site:
    """A service, and one engine `ns/e` that publishes one prompt of tokens 0 to 31."""

    def __init__(self, folder: Path, settings: PrefixSettings) -> None:
        self.facts = FakeEngineFacts()
        self.service = PrefixService(settings, self.facts, clock=SystemClock(), ids=SeededIds(1))
        pub, replay = f"ipc://{folder}/pub", f"ipc://{folder}/replay"
        config = KvEventsConfig(enable_kv_cache_events=True, endpoint=pub, replay_endpoint=replay)
        self.publisher = KvEventPublisher(config, SystemClock())
        self.publisher.publish([BlockStored([1, 2], None, list(range(32)), 16, None, "GPU", None)])
        self.tasks = TaskOwner("publisher")
        self.publisher.serve_replays(self.tasks)
        self.facts.publishes["ns/e"] = [EventSource(0, pub, replay)]
        self.facts.folders["ns/e"] = ""
        self.backend = Backend("ns/e", "http://e:1", kv_events=pub)
        self.server = ModelServer(("ns", "s"), "m", "vLLM", (self.backend, Backend("ns/quiet", "http://q:1")))

    async def until(self, holds: Callable[[], bool]) -> None:
        deadline = asyncio.get_running_loop().time() + 20
        while not holds():
            assert asyncio.get_running_loop().time() < deadline, repr(self.service)
            await asyncio.sleep(0.01)

    def view(self, **fields: Any) -> LazyView:
        raw = json.dumps({"model": "m", **fields}).encode()
        return LazyView(Body.parse(raw), "/v1/completions", [], model="m", chance=lambda: 0.0)

    async def stop(self) -> None:
        await self.service.stop()
        await self.tasks.stop()
        self.publisher.close()


@pytest_asyncio.fixture
async def make_site(tmp_path: Path) -> AsyncIterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(settings: PrefixSettings | None = None) -> Site:
        patient = PrefixSettings(tokeniser=TokeniserSettings(deadline_s=30, prompt_bytes_min=1, engines_min=1))
        made.append(Site(tmp_path, settings or patient))
        return made[-1]

    yield make
    for site in made:
        await site.stop()


async def test_an_engine_is_followed_its_prompts_tokenised_and_matched(make_site: Any, lab: Any) -> None:
    site = make_site()
    await site.service.start()
    site.service.took_engines(site.server.backends)
    await site.until(lambda: site.service.exact.entries == 2)
    site.facts.vocabulary["hello"] = range(40)
    view = site.view(prompt="hello")
    await site.service.prepare(view, site.server)
    assert list(view.token_ids or ()) == list(range(40))
    assert site.service.knowledge.matched_tokens(view, lab.candidates("ns/e", "ns/quiet")) == [32, 0]


async def test_an_engine_without_events_is_known_by_its_text_beside_one_with(make_site: Any, lab: Any) -> None:
    site = make_site()
    await site.service.start()
    site.service.took_engines(site.server.backends)
    await site.until(lambda: site.service.exact.entries == 2)
    view = site.view(prompt="x" * 1024)
    view.token_ids = range(256)
    site.service.knowledge.routed(view, "ns/quiet", 0.0)
    site.service.knowledge.finished(view, "ns/quiet", 1.0, succeeded=True)
    assert site.service.knowledge.matched_tokens(view, lab.candidates("ns/e", "ns/quiet")) == [32, 255]


async def test_a_salt_is_noted_and_keeps_prompts_apart(make_site: Any, lab: Any) -> None:
    site = make_site()
    await site.service.start()
    site.service.took_engines(site.server.backends)
    await site.until(lambda: site.service.exact.entries == 2)
    view = site.view(prompt=list(range(40)), cache_salt="tenant")
    await site.service.prepare(view, site.server)
    assert list(view.token_ids or ()) == list(range(40))
    assert site.service.knowledge.matched_tokens(view, lab.candidates("ns/e")) == [0]


async def test_an_engine_gone_is_forgotten_and_one_that_moved_is_met_again(make_site: Any) -> None:
    site = make_site()
    await site.service.start()
    site.service.took_engines(site.server.backends)
    await site.until(lambda: site.service.exact.entries == 2)
    site.service.took_engines([])
    assert list(site.service.exact.engines) == []
    site.service.took_engines([Backend("ns/e", "http://elsewhere:1", kv_events=site.backend.kv_events)])
    await site.until(lambda: site.service.exact.entries == 2)
    site.service.took_engines([Backend("ns/e", "http://elsewhere:2")])
    assert site.service.exact.entries == 0


async def test_nothing_is_tokenised_while_no_engine_publishes(make_site: Any) -> None:
    site = make_site()
    await site.service.start()
    view = site.view(prompt="hello")
    await site.service.prepare(view, site.server)
    assert view.token_ids is None
    assert site.facts.asked == []


async def test_a_short_prompt_is_not_tokenised_and_neither_is_one_for_a_lone_engine(make_site: Any) -> None:
    """What can't tell engines apart is not worth a question to one of them."""
    site = make_site(PrefixSettings(tokeniser=TokeniserSettings(deadline_s=30)))
    await site.service.start()
    site.service.took_engines(site.server.backends)
    await site.until(lambda: site.service.exact.entries == 2)
    long, short = "x" * 400, "x" * 100
    site.facts.vocabulary |= {long: range(90), short: range(20)}
    lone = ModelServer(("ns", "s"), "m", "vLLM", (site.backend,))
    found = []
    for prompt, server in ((short, site.server), (long, lone), (long, site.server), ([1, 2, 3], site.server)):
        view = site.view(prompt=prompt)
        await site.service.prepare(view, server)
        found.append(None if view.token_ids is None else len(view.token_ids))
    assert found == [None, None, 90, 3]
    assert len(site.facts.asked) == 1


async def test_switched_off_no_engine_is_followed(make_site: Any) -> None:
    site = make_site(PrefixSettings(enabled=False))
    await site.service.start()
    site.service.took_engines(site.server.backends)
    await asyncio.sleep(0)
    assert list(site.service.exact.engines) == []


def test_sources_are_where_the_engine_is_known_to_be() -> None:
    told = {
        "0": {"endpoint": "tcp://*:5557", "replay_endpoint": "tcp://*:5558"},
        "1": {"endpoint": "tcp://10.9.9.9:5567", "replay_endpoint": None},
        "x": {"endpoint": "tcp://*:1"}, "2": {"endpoint": None}, "3": 7,
    }  # fmt: skip
    assert sources_of(told, "tcp://10.0.0.7:5557") == (
        EventSource(0, "tcp://10.0.0.7:5557", "tcp://10.0.0.7:5558"),
        EventSource(1, "tcp://10.0.0.7:5567", ""),
    )
    assert sources_of({"0": {"endpoint": "tcp://*:1"}}, "tcp://[fe80::1]:9")[0].endpoint == "tcp://[fe80::1]:1"
    assert sources_of({"0": {"endpoint": "ipc:///a"}}, "ipc:///b")[0].endpoint == "ipc:///a"
    wrongs: list[Any] = [None, [], "x", 3]
    for wrong in wrongs:
        assert sources_of(wrong, "tcp://10.0.0.7:5557") == ()


async def test_every_metric_is_documented(make_site: Any) -> None:
    registry, documented = CollectorRegistry(), (ROOT / "docs" / "routing.md").read_text()
    PrefixMetrics(make_site().service, registry)
    for family in registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        assert f"`{name}`" in documented, name
    assert b'hekla_router_prefix_entries{index="exact"} 0.0' in generate_latest(registry)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("approximate", "block_bytes", 12),
        ("exact", "storage_credit", 1.5),
        ("events", "probe_s", 0),
        ("tokeniser", "threads", 0),
    ],
)
def test_a_setting_out_of_range_names_itself(section: str, field: str, value: float) -> None:
    kind = type(getattr(PrefixSettings(), section))
    with pytest.raises(ValueError, match=rf"prefix\.{section}\.{field} is {value}"):
        kind(**{field: value})
