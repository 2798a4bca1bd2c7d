"""What a finished request leaves behind: nothing that holds its body, and nothing that waits for the garbage collector."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import itertools
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from hekla.platform.base.tasks import TaskOwner
from hekla.routing.body import Body
from hekla.routing.config import LimitSettings
from hekla.routing.exchange import Exchange

REFUSED = {"error": {"message": "too long", "type": "BadRequestError", "param": None, "code": 400}}
LARGE = "so much to tell " * 30_000


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Only references count: the garbage collector does not run."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive(kind: type) -> list[Any]:
    return [one for one in gc.get_objects() if isinstance(one, kind)]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refused_prompt_is_forgotten_before_its_first_token_was_due(
    start_site: Any, start_backend: Any, kit: Any, stream: bool, uncollected: None
) -> None:
    """An engine says at once that a prompt is too long, whose computation had been forecast to take a while."""

    async def refusing(answer: Any) -> None:
        await answer.reply(400, REFUSED)
        answer.body = b""

    site = await start_site(*kit.objects(await start_backend(refusing)))
    for number in range(3):
        assert (await site.post(stream=stream, messages=[{"role": "user", "content": f"{number} {LARGE}"}]))[0] == 400
    await kit.until(lambda: not [body for body in alive(Body) if len(body.raw) > len(LARGE)], "no body is held")


async def test_requests_of_all_kinds_leave_no_garbage(
    start_site: Any, start_backend: Any, kit: Any, uncollected: None
) -> None:
    entered = asyncio.Event()

    async def moody(answer: Any) -> None:
        if answer.json.get("refuse"):
            await answer.reply(400, REFUSED)
        elif answer.json.get("endless"):
            await answer.begin(content_type="text/event-stream")
            await answer.write(kit.event({"choices": [{"delta": {"content": "x"}}]}))
            entered.set()
            await answer.wait_left()
        else:
            await kit.chat(answer)

    site = await start_site(*kit.objects(await start_backend(moody)))
    for _ in range(3):
        assert (await site.post())[0] == 200
        assert (await site.post(refuse=True))[0] == 400
        assert (await site.post(model="unknown"))[0] == 404
        await site.stream()
        async with site.client.post("/v1/completions", data=b"{") as response:
            assert response.status == 400
        entered.clear()
        async with TaskOwner("leavers") as tasks:
            tasks.spawn(site.stream(endless=True), "leaver")
            await entered.wait()
    del response
    await kit.until(lambda: site.ingress.gateway.in_flight == 0, "nothing in flight")
    await kit.until(lambda: not alive(Exchange), "references alone let every exchange go")


async def test_a_body_in_tiny_parts_takes_the_memory_of_its_bytes() -> None:
    count = 20_000
    numbers = itertools.count(1)

    async def receive() -> dict[str, Any]:
        number = next(numbers)
        if number % 20 == 0:
            await asyncio.sleep(0)
        return {"type": "http.request", "body": b"%02d" % (number % 100), "more_body": number < count}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    scope = {"path": "/v1/completions", "method": "POST", "headers": []}
    exchange = Exchange(scope, receive, send, request_id="r", started_s=0.0)
    tracemalloc.start()
    try:
        assert len(await exchange.read_body(LimitSettings())) == 2 * count
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 5 * 2 * count


PROGRAM = """
import sys
from hekla.routing.process_memory import return_large_blocks

def resident_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

if sys.argv[1] == "told":
    assert return_large_blocks()
large = bytearray(30 * 2**20)
del large
before = resident_mib()
pins, bodies = [], []
for _ in range(20):
    bodies.append(b"x" * (8 * 2**20))
    pins.append(b"y" * (64 * 2**10))
del bodies
print(resident_mib() - before)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallopt"), reason="is about glibc's malloc"
)
def test_large_bodies_memory_goes_back_to_the_system() -> None:
    def kept_mib(how: str) -> float:
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True, timeout=60
        )
        return float(ran.stdout)

    assert kept_mib("told") < 16
    assert kept_mib("untold") > 100, "the test would not see the difference"


def test_what_a_process_has_at_its_start_is_not_looked_at_again_by_the_cycle_collector() -> None:
    program = (
        "import gc; from hekla.routing.process_memory import collect_seldom; kept = [[] for _ in range(1000)]; "
        "collect_seldom(); print(gc.get_freeze_count() >= 1000, gc.get_threshold()[0] >= 10_000, gc.isenabled())"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.split() == ["True", "True", "True"]
