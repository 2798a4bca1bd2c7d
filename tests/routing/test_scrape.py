"""The engines' own numbers: read from their pages, in virtual time with pages that fail, and over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hekla.platform.base.clock import VirtualClock
from hekla.platform.base.errors import Unavailable
from hekla.platform.base.ids import SeededIds
from hekla.routing.backend import Backend
from hekla.routing.config import RoutingSettings, ScrapeSettings
from hekla.routing.engine_metrics import Report, parse_report
from hekla.routing.load import AdapterState, Counts, LoadBook
from hekla.routing.scheduling.interface import Candidate
from hekla.routing.scheduling.scorers.least_request import LeastRequest
from hekla.routing.scrape import EngineScraper

PAGE = b"vllm:num_requests_running 3.0\nvllm:num_requests_waiting 2.0\n"


@pytest.mark.parametrize(
    ("page", "report"),
    [
        (b"", Report()),
        (PAGE, Report(3, 2)),
        (b'vllm:num_requests_waiting{engine="0",model_name="a}b \\" c"} 4 1700000000\n', Report(None, 4)),
        (b'vllm:num_requests_running{engine="0"} 1\r\nvllm:num_requests_running{engine="1"} 2.0\r\n', Report(3, None)),
        (b"sglang:num_running_reqs 5\nsglang:num_queue_reqs 6\n", Report(5, 6)),
        (b"sglang_num_running_reqs 5\nray_vllm_num_requests_waiting{a=\"b\"} 1\n", Report(5, 1)),
        ((b'sglang:num_queue_reqs{tp_rank="0",dp_rank="0"} 2\nsglang:num_queue_reqs{tp_rank="1",dp_rank="0"} 2\n'
         b'sglang:num_queue_reqs{tp_rank="0",dp_rank="1"} 3\n'), Report(None, 5)),
        (b'vllm:num_requests_waiting_by_reason{reason="capacity"} 9\nvllm:num_requests_running_total 9\n', Report()),
        (b"# HELP vllm:num_requests_running 7\n# TYPE vllm:num_requests_running gauge\n", Report()),
        (b"vllm:num_requests_running NaN\nvllm:num_requests_waiting -1\n", Report()),
        (b"vllm:num_requests_running 1e300\nvllm:num_requests_waiting +Inf\n", Report()),
        (b"vllm:num_requests_running\nvllm:num_requests_waiting x\n\xff\xfe{", Report()),
        (b'vllm:num_requests_running{a="' + b"x" * 100_000, Report()),
    ],
)  # fmt: skip
def test_running_and_waiting_are_read_from_every_engines_page(page: bytes, report: Report) -> None:
    assert parse_report(page) == report


class Pages:
    """Engines' pages in memory. A URL without a page is unreachable; `hold` keeps answers back."""

    def __init__(self, **pages: bytes) -> None:
        self.pages = {f"http://{name}/metrics": page for name, page in pages.items()}
        self.asked: list[str] = []
        self.open = self.open_most = 0
        self.go = asyncio.Event()
        self.go.set()

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        self.open += 1
        self.open_most = max(self.open, self.open_most)
        try:
            await self.go.wait()
        finally:
            self.open -= 1
        if url not in self.pages:
            raise Unavailable(url)
        return self.pages[url]


class Rig:
    def __init__(self, pages: Pages, *names: str, **settings: Any) -> None:
        self.engines = [Backend(name, f"http://{name}") for name in names]
        self.loads, self.clock, self.outcomes = LoadBook(), VirtualClock(), list[str]()
        self.loads.forget(set(names))
        self.scraper = EngineScraper(
            self.loads, lambda: self.engines, pages.fetch, ScrapeSettings(**settings),
            clock=self.clock, ids=SeededIds(4), count=self.outcomes.append,
        )  # fmt: skip

    def said(self, name: str) -> tuple[int | None, int | None]:
        load = self.loads.load(name)
        return load.running, load.engine_waiting


async def test_each_engine_is_asked_about_once_a_period_and_its_numbers_are_kept() -> None:
    pages = Pages(a=PAGE)
    rig = Rig(pages, "a", "silent")
    await rig.scraper.start()
    await rig.clock.advance(100)
    assert rig.said("a") == (3, 2)
    assert rig.said("silent") == (None, None)
    assert 80 <= pages.asked.count("http://a/metrics") <= 120
    assert {"ok", "failed"} == set(rig.outcomes)
    await rig.scraper.stop()


async def test_numbers_that_are_too_old_count_for_nothing() -> None:
    pages = Pages(a=PAGE)
    rig = Rig(pages, "a", stale_s=5)
    await rig.scraper.start()
    await rig.clock.advance(4)
    pages.pages.clear()
    await rig.clock.advance(2)
    assert rig.said("a") == (3, 2), "one answer that fails changes nothing"
    await rig.clock.advance(6)
    assert rig.said("a") == (None, None)
    await rig.scraper.stop()


async def test_a_queue_seen_only_once_is_no_queue() -> None:
    pages = Pages(a=PAGE)
    rig = Rig(pages, "a")
    await rig.scraper.start()
    seen = []
    for waiting in (0, 50, 0, 50, 50, 50):
        pages.pages["http://a/metrics"] = b"vllm:num_requests_waiting %d\n" % waiting
        asked = len(pages.asked)
        while len(pages.asked) == asked:
            await rig.clock.advance(0.1)
        seen.append(rig.said("a")[1])
    assert seen == [None, 0, 0, 0, 50, 50]
    await rig.scraper.stop()


async def test_engines_that_hang_are_asked_one_by_one_and_never_more_than_the_limit_at_once() -> None:
    pages = Pages()
    pages.go.clear()
    names = [f"e{i}" for i in range(20)]
    rig = Rig(pages, *names, concurrency_max=3)
    await rig.scraper.start()
    await rig.clock.advance(50)
    assert (pages.open, pages.open_most, len(pages.asked)) == (3, 3, 3)
    pages.go.set()
    await rig.clock.advance(3)
    assert pages.open_most == 3
    assert {url.split("/")[2] for url in pages.asked} == set(names)
    await rig.scraper.stop()


async def test_an_answer_for_an_engine_that_is_gone_is_dropped() -> None:
    pages = Pages(a=PAGE)
    pages.go.clear()
    rig = Rig(pages, "a")
    await rig.scraper.start()
    await rig.clock.advance(2)
    assert pages.open == 1
    rig.engines.clear()
    rig.loads.forget(set())
    pages.go.set()
    await rig.clock.advance(10)
    assert rig.said("a") == (None, None)
    await rig.scraper.stop()


def test_an_old_number_of_running_requests_does_not_make_new_ones_look_like_a_queue() -> None:
    book = LoadBook()
    book.forget({"busy", "fresh"})
    for _ in range(60):
        book.add("busy", Counts(1))
    for _ in range(20):
        book.add("fresh", Counts(1))
    book.report("busy", 60, 0)
    book.report("fresh", 0, 0)  # asked before the twenty were sent
    candidates = [Candidate(Backend(name, ""), book.load(name)) for name in ("busy", "fresh")]
    request: Any = None
    scores = LeastRequest().score(request, candidates)
    assert scores[1] > scores[0]
    book.report("fresh", 5, 1)  # it is full at five: fifteen wait
    scores = LeastRequest().score(request, candidates)
    assert scores[0] > scores[1]


async def test_an_engine_that_reports_a_queue_gets_no_more_requests(
    start_site: Any, start_backend: Any, kit: Any
) -> None:
    async def queued(answer: Any) -> None:
        if answer.path == "/metrics":
            await answer.reply(200, b"vllm:num_requests_running 8.0\nvllm:num_requests_waiting 10.0\n")
        else:
            await kit.chat(answer)

    async def no_page(answer: Any) -> None:
        await (answer.reply(500, {}) if answer.path == "/metrics" else kit.chat(answer))

    full, free = await start_backend(queued), await start_backend(no_page)
    settings = RoutingSettings(scrape=ScrapeSettings(period_s=0.02))
    site = await start_site(*kit.objects(full, free), settings=settings)
    await kit.until(lambda: site.ingress.loads.load("default/e0").engine_waiting == 10, "the queue is known")
    await kit.until(lambda: site.sample("engine_scrapes_total", outcome="failed") > 0, "the other has no page")
    for _ in range(10):
        assert (await site.post())[0] == 200
    assert [r.path for r in full.requests if r.path != "/metrics"] == []


@pytest.mark.parametrize(
    ("page", "report"),
    [
        (b'vllm:kv_cache_usage_perc{engine="0"} 0.25\n', Report(kv_usage=0.25)),
        (b'vllm:kv_cache_usage_perc{engine="0"} 0.2\nvllm:kv_cache_usage_perc{engine="1"} 0.6\n', Report(kv_usage=0.4)),
        (b"ray_vllm_gpu_cache_usage_perc 1.5\n", Report(kv_usage=1.0)),
        (b'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000"} 1\n', Report(kv_capacity_tokens=16_000)),
        ((b'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="10"} 1\n'
          b'vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="10"} 1\n'), Report(kv_capacity_tokens=320)),
        (b'vllm:cache_config_info{block_size="16",num_gpu_blocks="None"} 1\n', Report()),
        (b"sglang:token_usage 0.5\nsglang:max_total_num_tokens 4096\n", Report(kv_usage=0.5, kv_capacity_tokens=4096)),
        ((b'vllm:lora_requests_info{max_lora="2",running_lora_adapters="old",waiting_lora_adapters=""} 10\n'
          b'vllm:lora_requests_info{max_lora="2",running_lora_adapters="a, b",waiting_lora_adapters="c"} 20\n'),
         Report(adapters=AdapterState(frozenset({"a", "b"}), frozenset({"c"}), 2))),
        (b'vllm:lora_requests_info{max_lora="x"} 10\n', Report(adapters=AdapterState())),
    ],
)  # fmt: skip
def test_memory_and_adapters_are_read_from_every_engines_page(page: bytes, report: Report) -> None:
    assert parse_report(page) == report


async def test_an_engines_capacity_and_memory_are_taken_up() -> None:
    page = PAGE + b'vllm:kv_cache_usage_perc 0.5\nvllm:cache_config_info{block_size="16",num_gpu_blocks="64"} 1\n'
    pages = Pages(a=page)
    rig = Rig(pages, "a")
    told: list[tuple[str, int]] = []
    rig.scraper = EngineScraper(
        rig.loads, lambda: rig.engines, pages.fetch, ScrapeSettings(), clock=rig.clock, ids=SeededIds(4),
        on_capacity=lambda engine, tokens: told.append((engine.key, tokens)),
    )  # fmt: skip
    await rig.scraper.start()
    await rig.clock.advance(3)
    assert rig.loads.load("a").kv_usage == 0.5
    assert ("a", 1024) in told
    await rig.scraper.stop()
